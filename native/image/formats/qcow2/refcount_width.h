// refcount_width.h: reference counts of 1 to 64 bits inside the bytes of a refcount block.
// Knows: the qcow2 specification, section "Host cluster management". Threads: pure functions.
#pragma once

#include <cstdint>

#include "base/bytes.h"

namespace sluicebox::image::qcow2 {

// Widths below a byte: the count of the lowest index is in the lowest bits.
inline std::uint64_t load_refcount(const std::byte* block, unsigned order, std::uint64_t index) {
  switch (order) {
    case 3:
      return std::to_integer<std::uint8_t>(block[index]);
    case 4:
      return load_be16(block + index * 2);
    case 5:
      return load_be32(block + index * 4);
    case 6:
      return load_be64(block + index * 8);
    default: {
      const unsigned width = 1u << order;
      const unsigned shift = static_cast<unsigned>(index * width % 8);
      const auto mask = static_cast<std::uint8_t>((1u << width) - 1);
      return (std::to_integer<unsigned>(block[index * width / 8]) >> shift) & mask;
    }
  }
}

// `value` fits in the width.
inline void store_refcount(std::byte* block, unsigned order, std::uint64_t index, std::uint64_t value) {
  switch (order) {
    case 3:
      block[index] = static_cast<std::byte>(value);
      return;
    case 4:
      store_be16(block + index * 2, static_cast<std::uint16_t>(value));
      return;
    case 5:
      store_be32(block + index * 4, static_cast<std::uint32_t>(value));
      return;
    case 6:
      store_be64(block + index * 8, value);
      return;
    default: {
      const unsigned width = 1u << order;
      const unsigned shift = static_cast<unsigned>(index * width % 8);
      const unsigned mask = ((1u << width) - 1) << shift;
      std::byte& byte = block[index * width / 8];
      byte =
          static_cast<std::byte>((std::to_integer<unsigned>(byte) & ~mask) | (static_cast<unsigned>(value) << shift));
    }
  }
}

}  // namespace sluicebox::image::qcow2
