#include "image/formats/vhdx/header.h"

#include <string>

#include "image/formats/vhdx/crc32c.h"

namespace sluicebox::image::vhdx {

namespace {

constexpr char kHeadSignature[] = "head";
constexpr std::size_t kChecksumAt = 4, kSequenceAt = 8, kFileWriteAt = 16, kDataWriteAt = 32, kLogAt = 48;
constexpr std::size_t kLogVersionAt = 64, kVersionAt = 66, kLogLengthAt = 68, kLogOffsetAt = 72;

}  // namespace

std::optional<Header> parse_header(Bytes bytes) {
  if (bytes.size() < kHeaderBytes || std::memcmp(bytes.data(), kHeadSignature, 4) != 0) return std::nullopt;
  bytes = bytes.first(kHeaderBytes);
  const std::byte* raw = bytes.data();
  if (load_le32(raw + kChecksumAt) != crc32c_padded(bytes, kChecksumAt, kHeaderBytes)) return std::nullopt;
  Header header;
  header.sequence = load_le64(raw + kSequenceAt);
  header.file_write = load_guid(raw + kFileWriteAt);
  header.data_write = load_guid(raw + kDataWriteAt);
  header.log = load_guid(raw + kLogAt);
  header.log_version = load_le16(raw + kLogVersionAt);
  header.version = load_le16(raw + kVersionAt);
  header.log_length = load_le32(raw + kLogLengthAt);
  header.log_offset = load_le64(raw + kLogOffsetAt);
  return header;
}

std::array<std::byte, kHeaderUsedBytes> serialize_header(const Header& header) {
  std::array<std::byte, kHeaderUsedBytes> bytes = {};
  std::byte* raw = bytes.data();
  std::memcpy(raw, kHeadSignature, 4);
  store_le64(raw + kSequenceAt, header.sequence);
  store_guid(raw + kFileWriteAt, header.file_write);
  store_guid(raw + kDataWriteAt, header.data_write);
  store_guid(raw + kLogAt, header.log);
  store_le16(raw + kLogVersionAt, header.log_version);
  store_le16(raw + kVersionAt, header.version);
  store_le32(raw + kLogLengthAt, header.log_length);
  store_le64(raw + kLogOffsetAt, header.log_offset);
  store_le32(raw + kChecksumAt, crc32c_padded(bytes, kChecksumAt, kHeaderBytes));
  return bytes;
}

Result<CurrentHeader> current_header(const std::optional<Header>& first, const std::optional<Header>& second) {
  if (!first && !second) {
    return Error(ErrorCode::kImageCorrupt, "neither of the two vhdx headers is sound").at(kHeaderOffsets[0]);
  }
  // Equal numbers are what some tools leave; only the same header twice tells which one counts.
  if (first && second && first->sequence == second->sequence && *first != *second) {
    return Error(ErrorCode::kImageCorrupt, "both vhdx headers claim to be the current one, and they differ")
        .at(kHeaderOffsets[0]);
  }
  const unsigned copy = !first || (second && second->sequence > first->sequence) ? 1 : 0;
  const Header& header = copy == 0 ? *first : *second;
  if (header.version != 1) {
    return Error(ErrorCode::kUnsupported, "the vhdx has version " + std::to_string(header.version) + ", not 1");
  }
  return CurrentHeader{.header = header, .copy = copy};
}

}  // namespace sluicebox::image::vhdx
