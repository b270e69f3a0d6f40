#include "box/bz_image.h"

#include <lz4.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "base/checked.h"
#include "box/elf.h"

namespace sluicebox::box {

namespace {

// The set-up header's fields, by their offsets in the file.
constexpr std::size_t kSetupSectors = 0x1f1;
constexpr std::size_t kMagic = 0x202;
constexpr std::size_t kProtocolVersion = 0x206;
constexpr std::size_t kPayloadOffset = 0x248;
constexpr std::size_t kPayloadLength = 0x24c;
constexpr std::size_t kHeaderEnd = 0x250;
constexpr std::uint16_t kFirstWithPayload = 0x0208;
constexpr std::size_t kSector = 512;

constexpr std::uint32_t kLz4Legacy = 0x184c2102;
constexpr std::size_t kLz4Block = std::size_t{8} * 1024 * 1024;
// Of the kernel's own: the unpacked size, after the payload's last block.
constexpr std::size_t kSizeField = 4;
constexpr std::size_t kMostUnpacked = std::size_t{1} << 29;

constexpr std::uint32_t kNoteSegment = 4;  // PT_NOTE
constexpr std::uint32_t kPvhEntry = 18;    // XEN_ELFNOTE_PHYS32_ENTRY

Error corrupt(const std::string& why) {
  return Error(ErrorCode::kBoxStart, "the kernel of virtual machines is corrupt: " + why);
}

// Notes: name size, descriptor size, type; then both, each padded to 4.
bool holds_pvh_note(Bytes notes) {
  while (notes.size() >= 12) {
    const std::uint64_t name_size = load_le32(notes.data());
    const std::uint64_t value_size = load_le32(notes.data() + 4);
    const std::uint32_t type = load_le32(notes.data() + 8);
    const std::uint64_t name_end = 12 + div_round_up(name_size, 4) * 4;
    const std::uint64_t end = name_end + div_round_up(value_size, 4) * 4;
    if (end > notes.size()) return false;
    if (type == kPvhEntry && name_size == 4 && std::memcmp(notes.data() + 12, "Xen", 4) == 0) return true;
    notes = notes.subspan(end);
  }
  return false;
}

}  // namespace

Result<Bytes> bz_payload(Bytes image) {
  if (image.size() < kHeaderEnd || std::memcmp(image.data() + kMagic, "HdrS", 4) != 0)
    return corrupt("it has no header of the x86 boot protocol");
  if (load_le16(image.data() + kProtocolVersion) < kFirstWithPayload)
    return corrupt("its header is of an older protocol");
  std::uint64_t sectors = std::to_integer<std::uint8_t>(image[kSetupSectors]);
  if (sectors == 0) sectors = 4;
  const std::uint64_t offset = (sectors + 1) * kSector + load_le32(image.data() + kPayloadOffset);
  const std::uint64_t length = load_le32(image.data() + kPayloadLength);
  if (length < kSizeField + 4 || offset > image.size() || length > image.size() - offset)
    return corrupt("its payload lies outside the file");
  return image.subspan(offset, length);
}

bool is_lz4(Bytes payload) { return payload.size() >= 4 && load_le32(payload.data()) == kLz4Legacy; }

Result<std::size_t> unpacked_size(Bytes payload) {
  const std::size_t size = load_le32(payload.data() + payload.size() - kSizeField);
  if (size == 0 || size > kMostUnpacked) return corrupt("it claims " + std::to_string(size) + " bytes");
  return size;
}

Status unpack_lz4(Bytes payload, MutableBytes to) {
  Bytes left = payload.subspan(4, payload.size() - 4 - kSizeField);
  while (!left.empty()) {
    if (left.size() < 4) return corrupt("a block is cut short");
    const std::size_t packed = load_le32(left.data());
    left = left.subspan(4);
    // Frames can follow each other.
    if (packed == kLz4Legacy) continue;
    if (packed == 0 || packed > left.size()) return corrupt("a block lies outside the file");
    const std::size_t room = std::min(to.size(), kLz4Block);
    // LZ4's bytes are characters; both sizes fit its int: `left` lies in a payload below 4 GiB, checked next.
    if (packed > static_cast<std::size_t>(LZ4_MAX_INPUT_SIZE)) return corrupt("a block is too long");
    const int done = LZ4_decompress_safe(reinterpret_cast<const char*>(left.data()), reinterpret_cast<char*>(to.data()),
                                         static_cast<int>(packed), static_cast<int>(room));
    if (done < 0) return corrupt("a block cannot be unpacked");
    to = to.subspan(static_cast<std::size_t>(done));
    left = left.subspan(packed);
  }
  return to.empty() ? ok_status() : corrupt("it is shorter than it claims");
}

bool has_pvh_entry(Bytes vmlinux) {
  const auto segments = elf_segments(vmlinux);
  if (!segments.ok()) return false;
  for (const ElfSegment& segment : segments.value()) {
    if (segment.type == kNoteSegment && holds_pvh_note(segment.bytes)) return true;
  }
  return false;
}

}  // namespace sluicebox::box
