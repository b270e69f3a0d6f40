#include "box/elf.h"

#include <algorithm>
#include <cstring>
#include <string_view>

namespace sluicebox::box {

namespace {

// Of a 64-bit file: sizes of the headers, and offsets in them.
constexpr std::size_t kHeaderSize = 64;
constexpr std::size_t kSegmentTable = 32;
constexpr std::size_t kSectionTable = 40;
constexpr std::size_t kSegmentEntrySize = 54;
constexpr std::size_t kSegmentCount = 56;
constexpr std::size_t kSectionEntrySize = 58;
constexpr std::size_t kSectionCount = 60;
constexpr std::size_t kNamesIndex = 62;
constexpr std::size_t kSegmentSize = 56;
constexpr std::size_t kSectionSize = 64;
constexpr std::uint32_t kNoBits = 8;  // SHT_NOBITS

constexpr char kIdent[] = {0x7f, 'E', 'L', 'F', 2 /* 64 bits */, 1 /* little-endian */, 1 /* version */};

Error malformed(const char* what) {
  return Error(ErrorCode::kIo, std::string("an ELF file's ") + what + " lies outside it");
}

Status check_header(Bytes file) {
  if (file.size() < kHeaderSize || std::memcmp(file.data(), kIdent, sizeof kIdent) != 0)
    return Error(ErrorCode::kUnsupported, "a file is not of 64-bit little-endian ELF");
  return ok_status();
}

Result<Bytes> part(Bytes file, std::uint64_t offset, std::uint64_t size, const char* what) {
  if (offset > file.size() || size > file.size() - offset) return malformed(what);
  return file.subspan(offset, size);
}

// `entries` of `size` bytes each, as both tables have them.
Result<Bytes> table(Bytes file, std::size_t offset_at, std::size_t size_at, std::size_t count_at, std::size_t size) {
  const std::uint64_t count = load_le16(file.data() + count_at);
  if (count == 0) return Bytes();
  if (load_le16(file.data() + size_at) != size) return Error(ErrorCode::kIo, "an ELF file's table has odd entries");
  return part(file, load_le64(file.data() + offset_at), count * size, "table");
}

// Up to the zero byte, or the end.
std::string text_at(Bytes names, std::size_t offset) {
  if (offset >= names.size()) return {};
  const Bytes rest = names.subspan(offset);
  const auto end = std::find(rest.begin(), rest.end(), std::byte{0});
  return {reinterpret_cast<const char*>(rest.data()), static_cast<std::size_t>(end - rest.begin())};  // as characters
}

}  // namespace

Result<std::vector<ElfSegment>> elf_segments(Bytes file) {
  TRY(check_header(file));
  Bytes left = TRY(table(file, kSegmentTable, kSegmentEntrySize, kSegmentCount, kSegmentSize));
  std::vector<ElfSegment> segments;
  for (; !left.empty(); left = left.subspan(kSegmentSize)) {
    const Bytes bytes = TRY(part(file, load_le64(left.data() + 8), load_le64(left.data() + 32), "segment"));
    segments.push_back({.type = load_le32(left.data()), .bytes = bytes});
  }
  return segments;
}

Result<std::vector<ElfSection>> elf_sections(Bytes file) {
  TRY(check_header(file));
  Bytes left = TRY(table(file, kSectionTable, kSectionEntrySize, kSectionCount, kSectionSize));
  std::vector<ElfSection> sections;
  std::vector<std::size_t> names;
  for (; !left.empty(); left = left.subspan(kSectionSize)) {
    ElfSection section;
    if (load_le32(left.data() + 4) != kNoBits)
      section.bytes = TRY(part(file, load_le64(left.data() + 24), load_le64(left.data() + 32), "section"));
    names.push_back(load_le32(left.data()));
    sections.push_back(std::move(section));
  }
  const std::size_t index = load_le16(file.data() + kNamesIndex);
  if (index >= sections.size()) return sections.empty() ? Result(sections) : malformed("table of names");
  const Bytes texts = sections[index].bytes;
  for (std::size_t i = 0; i < sections.size(); ++i) sections[i].name = text_at(texts, names[i]);
  return sections;
}

}  // namespace sluicebox::box
