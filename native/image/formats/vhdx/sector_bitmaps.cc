#include "image/formats/vhdx/sector_bitmaps.h"

#include <algorithm>

#include "base/checked.h"

namespace sluicebox::image::vhdx {

namespace {

constexpr std::uint64_t kPageBits = kLogSectorBytes * 8;

// Bit n of a bitmap is its sector n, the lowest of a byte first.
bool bit_of(const std::vector<std::byte>& page, std::uint64_t bit) {
  return (std::to_integer<unsigned>(page[bit / 8]) >> (bit % 8) & 1) != 0;
}

std::uint64_t same_bits(const std::vector<std::byte>& page, std::uint64_t first, std::uint64_t last) {
  const bool set = bit_of(page, first);
  const std::byte whole = set ? std::byte{0xff} : std::byte{0};
  std::uint64_t at = first + 1;
  while (at < last) {
    if (at % 8 == 0 && last - at >= 8 && page[at / 8] == whole) {
      at += 8;
    } else if (bit_of(page, at) == set) {
      ++at;
    } else {
      break;
    }
  }
  return at - first;
}

void put_bits(std::vector<std::byte>& page, std::uint64_t first, std::uint64_t last, bool set) {
  for (std::uint64_t at = first; at < last;) {
    if (at % 8 == 0 && last - at >= 8) {
      page[at / 8] = set ? std::byte{0xff} : std::byte{0};
      at += 8;
      continue;
    }
    const std::byte mask{static_cast<unsigned char>(1u << (at % 8))};
    page[at / 8] = set ? page[at / 8] | mask : page[at / 8] & ~mask;
    ++at;
  }
}

}  // namespace

Result<std::vector<std::byte>> SectorBitmaps::page(std::uint64_t offset) const {
  if (const auto found = changed_.find(offset); found != changed_.end()) return found->second;
  std::vector<std::byte> bytes(kLogSectorBytes);
  TRY(read_exact(file_, offset, bytes, "a sector bitmap"));
  return bytes;
}

Result<SectorBitmaps::SameBits> SectorBitmaps::look(std::uint64_t bitmap, std::uint64_t first,
                                                    std::uint64_t last) const {
  const std::uint64_t start = align_down(first, kPageBits);
  const auto bits = TRY(page(bitmap + start / 8));
  const std::uint64_t end = std::min(last - start, kPageBits);
  return SameBits{.set = bit_of(bits, first - start), .sectors = same_bits(bits, first - start, end)};
}

Status SectorBitmaps::change(std::uint64_t bitmap, std::uint64_t first, std::uint64_t last, bool set) {
  while (first < last) {
    const std::uint64_t start = align_down(first, kPageBits);
    const std::uint64_t end = std::min(last, start + kPageBits);
    auto bits = TRY(page(bitmap + start / 8));
    put_bits(bits, first - start, end - start, set);
    changed_[bitmap + start / 8] = std::move(bits);
    first = end;
  }
  return {};
}

}  // namespace sluicebox::image::vhdx
