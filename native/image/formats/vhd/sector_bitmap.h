// sector_bitmap.h: which sectors of a block are the image's own: a bit each, the first one the highest of its byte.
// Knows: bits. Does not know: files.
// Threads: pure functions.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/bytes.h"

namespace sluicebox::image::vhd {

inline bool sector_bit(Bytes bitmap, std::uint64_t sector) {
  return (std::to_integer<unsigned>(bitmap[sector / 8]) >> (7 - sector % 8) & 1) != 0;
}

// How many sectors from `first` on, at most to `end`, have the same bit as it.
inline std::uint64_t same_sectors(Bytes bitmap, std::uint64_t first, std::uint64_t end) {
  const bool bit = sector_bit(bitmap, first);
  const std::byte whole = bit ? std::byte{0xff} : std::byte{0};
  std::uint64_t at = first + 1;
  while (at < end) {
    if (at % 8 == 0 && end - at >= 8 && bitmap[at / 8] == whole) {
      at += 8;
    } else if (sector_bit(bitmap, at) == bit) {
      ++at;
    } else {
      break;
    }
  }
  return at - first;
}

inline void set_sectors(MutableBytes bitmap, std::uint64_t first, std::uint64_t end) {
  for (std::uint64_t at = first; at < end;) {
    if (at % 8 == 0 && end - at >= 8) {
      bitmap[at / 8] = std::byte{0xff};
      at += 8;
    } else {
      bitmap[at / 8] |= std::byte{static_cast<unsigned char>(0x80 >> (at % 8))};
      ++at;
    }
  }
}

}  // namespace sluicebox::image::vhd
