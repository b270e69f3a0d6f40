#include "image/formats/vhdx/crc32c.h"

#include <algorithm>
#include <array>

namespace sluicebox::image::vhdx {

namespace {

constexpr std::uint32_t kPolynomial = 0x82f63b78;  // reflected
constexpr std::size_t kSlices = 8;
using Tables = std::array<std::array<std::uint32_t, 256>, kSlices>;

// kTables[s][b]: what byte b contributes when s more bytes follow it.
constexpr Tables make_tables() {
  Tables tables{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? kPolynomial : 0);
    tables[0][byte] = crc;
  }
  for (std::size_t slice = 1; slice < kSlices; ++slice) {
    for (std::size_t byte = 0; byte < 256; ++byte) {
      const std::uint32_t crc = tables[slice - 1][byte];
      tables[slice][byte] = (crc >> 8) ^ tables[0][crc & 0xff];
    }
  }
  return tables;
}
constexpr Tables kTables = make_tables();

}  // namespace

std::uint32_t crc32c(Bytes bytes, std::uint32_t before) {
  std::uint32_t crc = ~before;
  while (bytes.size() >= kSlices) {
    const std::uint32_t low = load_le32(bytes.data()) ^ crc;
    const std::uint32_t high = load_le32(bytes.data() + 4);
    crc = kTables[7][low & 0xff] ^ kTables[6][(low >> 8) & 0xff] ^ kTables[5][(low >> 16) & 0xff] ^
          kTables[4][low >> 24] ^ kTables[3][high & 0xff] ^ kTables[2][(high >> 8) & 0xff] ^
          kTables[1][(high >> 16) & 0xff] ^ kTables[0][high >> 24];
    bytes = bytes.subspan(kSlices);
  }
  for (const std::byte byte : bytes) crc = (crc >> 8) ^ kTables[0][(crc ^ std::to_integer<std::uint32_t>(byte)) & 0xff];
  return ~crc;
}

std::uint32_t crc32c_padded(Bytes bytes, std::size_t skip, std::size_t length) {
  static constexpr std::array<std::byte, 4096> kZeros{};
  std::uint32_t crc = crc32c(bytes.first(skip));
  crc = crc32c(Bytes(kZeros).first(4), crc);
  crc = crc32c(bytes.subspan(skip + 4), crc);
  for (std::size_t left = length - std::min(length, bytes.size()); left > 0;) {
    const std::size_t part = std::min(left, kZeros.size());
    crc = crc32c(Bytes(kZeros).first(part), crc);
    left -= part;
  }
  return crc;
}

}  // namespace sluicebox::image::vhdx
