// vhdx_open_fuzz.cc: any bytes are refused, or read, checked, written and repaired without a crash, a hang or a lie.
// Input: a file of mostly zeros, written short: {u8 flags, u8 MiB of the file, up to 24}, then runs of {u16 sector of
// 512 bytes, u16 length, bytes}. Flag 1: the checksums of its headers, region tables and log entries are made right.
#include <algorithm>
#include <cstring>
#include <vector>

#include "fuzz/block_checks.h"
#include "image/formats/vhdx/crc32c.h"
#include "image/formats/vhdx/layout.h"
#include "image/formats/vhdx/vhdx.h"

namespace sluicebox::image::fuzz {

namespace {

constexpr std::size_t kMaxMebibytes = 24;
constexpr std::size_t kChecksumAt = 4;

void seal(std::vector<std::byte>& file, std::uint64_t at, std::size_t length) {
  if (at > file.size() || length > file.size() - at || length < 8) return;
  store_le32(file.data() + at + kChecksumAt, vhdx::crc32c_padded(Bytes(file).subspan(at, length), kChecksumAt, length));
}

// Entries that do not go on at the start of the ring, in the first MiB behind the headers, where new images have a log.
void seal_log(std::vector<std::byte>& file) {
  for (std::uint64_t at = vhdx::kMiB; at + vhdx::kLogSectorBytes <= std::min(file.size(), 2 * vhdx::kMiB);
       at += vhdx::kLogSectorBytes) {
    if (std::memcmp(file.data() + at, "loge", 4) == 0) seal(file, at, load_le32(file.data() + at + 8));
  }
}

std::vector<std::byte> expand(Bytes input) {
  const auto flags = std::to_integer<unsigned>(input[0]);
  std::vector<std::byte> file(std::min<std::size_t>(std::to_integer<unsigned>(input[1]), kMaxMebibytes) << 20);
  input = input.subspan(2);
  while (input.size() >= 4) {
    const std::size_t at = std::size_t{load_le16(input.data())} * 512;
    const std::size_t length = std::min<std::size_t>(load_le16(input.data() + 2), input.size() - 4);
    input = input.subspan(4);
    if (at < file.size()) std::memcpy(file.data() + at, input.data(), std::min(length, file.size() - at));
    input = input.subspan(length);
  }
  if ((flags & 1) == 0) return file;
  for (const std::uint64_t at : vhdx::kHeaderOffsets) seal(file, at, vhdx::kHeaderBytes);
  for (const std::uint64_t at : vhdx::kRegionTableOffsets) seal(file, at, vhdx::kRegionTableBytes);
  seal_log(file);
  return file;
}

Result<std::unique_ptr<Block>> open_for(File& file, OpenFor what) {
  return vhdx::open_vhdx(file, {.writable = what != OpenFor::kReading});
}

void move_to_another(Block& image) {
  const std::string id = "00112233-4455-6677-8899-aabbccddeeff";
  const BackingReference another{.path = "b", .format = "vhdx", .content_id = id};
  if (!image.set_backing(another).ok()) return;
  require(image.backing()->path == "b", "an image that was moved names its new parent");
}

bool look(Bytes input) {
  if (input.size() < 2) return false;
  const std::vector<std::byte> bytes = expand(input);
  MemoryFile file(bytes);
  if (auto block = vhdx::open_vhdx(file, {.info_only = true}); block.ok()) {
    require((*block)->info().cluster_bytes.has_value(), "info knows the block size");
  }
  // What a file of mostly zeros has to say lies in the input.
  const std::uint64_t where = input.size() > 20 ? load_le64(input.data() + 10) : 0;
  return check_anything(bytes, open_for, where, move_to_another);
}

}  // namespace

}  // namespace sluicebox::image::fuzz

bool sluicebox::fuzz::try_input(Bytes input) { return image::fuzz::look(input); }
