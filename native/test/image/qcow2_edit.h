// qcow2_edit.h: changes single fields of a qcow2 image in memory, to make damage.
// Knows: the format's layout. Threads: one test.
#pragma once

#include "image/formats/qcow2/layout.h"
#include "test/image/qcow2_fixture.h"

namespace sluicebox::image::qcow2 {

using Image = std::vector<std::byte>;

inline void put16(Image& image, std::size_t at, std::uint16_t value) { store_be16(image.data() + at, value); }
inline void put32(Image& image, std::size_t at, std::uint32_t value) { store_be32(image.data() + at, value); }
inline void put64(Image& image, std::size_t at, std::uint64_t value) { store_be64(image.data() + at, value); }
inline std::uint64_t get64(const Image& image, std::size_t at) { return load_be64(image.data() + at); }

inline std::uint64_t l1_of(const Image& image) { return get64(image, at::kL1Offset); }
// The first L2 table; where the n-th entry of it points.
inline std::uint64_t l2_of(const Image& image) { return get64(image, l1_of(image)) & kOffsetMask; }
inline std::uint64_t data_of(const Image& image, std::uint64_t n) {
  return get64(image, l2_of(image) + n * 8) & kOffsetMask;
}
// Where the 16-bit count of the cluster at `offset` lies.
inline std::uint64_t count_of(const Image& image, std::uint64_t offset) {
  const unsigned bits = load_be32(image.data() + at::kClusterBits);
  return get64(image, get64(image, at::kRefcountTableOffset)) + 2 * (offset >> bits);
}

}  // namespace sluicebox::image::qcow2
