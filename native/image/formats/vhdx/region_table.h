// region_table.h: where a VHDX has its table of blocks and its metadata.
// Knows: the format's layout. Does not know: files.
// Threads: values, pure functions.
#pragma once

#include <array>
#include <cstdint>

#include "base/bytes.h"
#include "base/result.h"
#include "image/formats/vhdx/layout.h"

namespace sluicebox::image::vhdx {

struct Region {
  std::uint64_t offset = 0;
  std::uint32_t length = 0;
  std::uint64_t end() const { return offset + length; }
};
struct RegionTable {
  Region table, metadata;
};

inline constexpr std::size_t kRegionTableUsedBytes = 16 + 2 * 32;

// `bytes` are 64 KiB. kUnsupported for a region that must be known and is not, else kImageCorrupt.
Result<RegionTable> parse_region_table(Bytes bytes);
// In such bytes, which were read so, the table of blocks has another place; with a checksum.
void place_table(MutableBytes bytes, const Region& place);
// The first bytes of 64 KiB; the others are zeros, and the checksum is of all.
std::array<std::byte, kRegionTableUsedBytes> serialize_region_table(const RegionTable& regions);

}  // namespace sluicebox::image::vhdx
