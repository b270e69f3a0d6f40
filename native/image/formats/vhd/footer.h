// footer.h: the 512 bytes that every VHD ends with, and that all but fixed ones begin with too.
// Knows: the format's layout. Does not know: files. What it does not understand survives a rewrite.
// Threads: values, pure functions.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/result.h"
#include "image/formats/vhd/layout.h"
#include "image/guid.h"

namespace sluicebox::image::vhd {

enum class DiskType : std::uint32_t { kFixed = 2, kDynamic = 3, kDifferencing = 4 };

struct Geometry {
  std::uint16_t cylinders = 0;
  std::uint8_t heads = 0, sectors = 0;
  std::uint64_t bytes() const { return std::uint64_t{cylinders} * heads * sectors * kSectorBytes; }
};
// The largest that a footer can tell. It stands for "more than a geometry can say": the current size counts then.
inline constexpr Geometry kLargestGeometry{.cylinders = 65535, .heads = 16, .sectors = 255};
// The specification's, of a disk of this size: what it says is at most that, and the largest of larger disks.
Geometry geometry_of(std::uint64_t disk_bytes);

struct Footer {
  std::array<std::byte, kFooterBytes> raw = {};  // as it was parsed, or as it was last serialised
  std::uint64_t data_offset = kNoOffset;         // of the dynamic header
  std::uint32_t timestamp = 0;                   // seconds since 2000-01-01 UTC
  std::string creator;                           // four characters
  std::uint64_t original_size = 0, current_size = 0;
  Geometry geometry;
  DiskType type = DiskType::kDynamic;
  Guid id = {};
  // Of a fixed disk on its way to another size: where this footer lies, behind more than the disk. Else 0. It takes
  // bytes that are reserved, and zeros.
  std::uint64_t stands_at = 0;

  // What a guest sees, as QEMU reckons it: the geometry's size for images of Virtual PC, of QEMU and of creators that
  // nobody knows; the current size for those that are known to go by it, and where the geometry says no more. In whole
  // sectors.
  std::uint64_t disk_bytes() const;
  // From here on disk_bytes() is this, whoever made the image.
  void set_disk_bytes(std::uint64_t bytes);
  // Its programs keep a map of full blocks behind the table.
  bool is_of_xen() const;
  // Whether a fixed disk's footer may lie there.
  bool fits(std::uint64_t offset) const { return current_size == offset || (offset != 0 && stands_at == offset); }

 private:
  bool creator_tells_size() const;
};

// `bytes` are 512, or the 511 of old files. kImageFormat when it is no footer, kUnsupported for another version or
// type, else kImageCorrupt.
Result<Footer> parse_footer(Bytes bytes);
// Over `footer.raw`, with a checksum.
void serialize_footer(Footer& footer);

// A time as a VHD counts it, from 2000-01-01 UTC on; what it cannot tell is the nearest that it can.
std::uint32_t timestamp_of(std::int64_t seconds_since_1970);

// One's complement of the sum of all bytes but the four at `skip`.
std::uint32_t checksum(Bytes bytes, std::size_t skip);

}  // namespace sluicebox::image::vhd
