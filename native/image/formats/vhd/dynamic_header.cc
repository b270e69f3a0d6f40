#include "image/formats/vhd/dynamic_header.h"

#include <algorithm>

#include "base/checked.h"
#include "image/formats/vhd/footer.h"
#include "image/utf16.h"

namespace sluicebox::image::vhd {

namespace {

Error bad_header(std::string text, std::size_t at) {
  return Error(ErrorCode::kImageCorrupt, "vhd dynamic header: " + std::move(text)).at(at);
}

}  // namespace

std::uint64_t DynamicHeader::bitmap_bytes() const {
  const std::uint64_t bytes = div_round_up(block_size / kSectorBytes, 8);
  return div_round_up(bytes, kSectorBytes) * kSectorBytes;
}

Result<DynamicHeader> parse_dynamic_header(Bytes bytes) {
  if (bytes.size() < kHeaderBytes || std::memcmp(bytes.data(), kHeaderCookie, kCookieBytes) != 0) {
    return bad_header("there is none", 0);
  }
  bytes = bytes.first(kHeaderBytes);
  const std::byte* raw = bytes.data();
  if (load_be32(raw + header_at::kChecksum) != checksum(bytes, header_at::kChecksum)) {
    return bad_header("its checksum is wrong", header_at::kChecksum);
  }
  DynamicHeader header;
  header.table_offset = load_be64(raw + header_at::kTableOffset);
  header.max_entries = load_be32(raw + header_at::kMaxEntries);
  header.block_size = load_be32(raw + header_at::kBlockSize);
  if (!is_power_of_two(header.block_size) || header.block_size < kMinReadBlockBytes ||
      header.block_size > kMaxBlockBytes) {
    return bad_header("a block size of " + std::to_string(header.block_size) + " bytes", header_at::kBlockSize);
  }
  header.parent_id = load_guid(raw + header_at::kParentId);
  header.parent_time = load_be32(raw + header_at::kParentTime);
  const auto name = utf8_of_utf16(bytes.subspan(header_at::kParentName, kParentNameBytes), /*big_endian=*/true);
  header.parent_name = name.value_or(std::string());
  for (std::size_t i = 0; i < kLocatorCount; ++i) {
    const std::byte* at = raw + header_at::kLocators + i * kLocatorBytes;
    header.locators[i] = {
        .code = load_be32(at), .space = load_be32(at + 4), .length = load_be32(at + 8), .offset = load_be64(at + 16)};
  }
  return header;
}

void serialize_dynamic_header(const DynamicHeader& header, MutableBytes out) {
  std::byte* raw = out.data();
  std::memset(raw, 0, kHeaderBytes);
  std::memcpy(raw, kHeaderCookie, kCookieBytes);
  store_be64(raw + header_at::kDataOffset, kNoOffset);
  store_be64(raw + header_at::kTableOffset, header.table_offset);
  store_be32(raw + header_at::kVersion, kVersion);
  store_be32(raw + header_at::kMaxEntries, header.max_entries);
  store_be32(raw + header_at::kBlockSize, header.block_size);
  store_guid(raw + header_at::kParentId, header.parent_id);
  store_be32(raw + header_at::kParentTime, header.parent_time);
  if (const auto name = utf16_of_utf8(header.parent_name, /*big_endian=*/true); name && !name->empty()) {
    std::memcpy(raw + header_at::kParentName, name->data(), std::min(name->size(), kParentNameBytes));
  }
  for (std::size_t i = 0; i < kLocatorCount; ++i) {
    std::byte* at = raw + header_at::kLocators + i * kLocatorBytes;
    store_be32(at, header.locators[i].code);
    store_be32(at + 4, header.locators[i].space);
    store_be32(at + 8, header.locators[i].length);
    store_be64(at + 16, header.locators[i].offset);
  }
  store_be32(raw + header_at::kChecksum, checksum(out.first(kHeaderBytes), header_at::kChecksum));
}

}  // namespace sluicebox::image::vhd
