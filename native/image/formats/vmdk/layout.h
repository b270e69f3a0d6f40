// layout.h: the facts and limits of the VMDK format, as the planner, reader, writer and checker all use them.
// Knows: VMware's "Virtual Disk Format 5.0" (sections "Hosted Sparse Extents" and "Stream-Optimized Compressed Sparse
// Extents"), and what QEMU's block/vmdk.c makes of it. Does not know: files.
// Threads: constants and values only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/checked.h"

namespace sluicebox::image::vmdk {

inline constexpr std::uint32_t kMagic = 0x564d444b;  // the bytes "KDMV"
inline constexpr std::string_view kDescriptorMagic = "# Disk DescriptorFile";
inline constexpr std::size_t kSectorBytes = 512;  // what a disk writes whole or not at all; the header counts in it

// Byte offsets in the header ("struct SparseExtentHeader"), little-endian, without padding.
namespace at {
inline constexpr std::size_t kVersion = 4, kFlags = 8, kCapacity = 12, kGrain = 20, kDescriptorOffset = 28;
inline constexpr std::size_t kDescriptorSize = 36, kTableEntries = 44, kRedundantDirectory = 48, kDirectory = 56;
inline constexpr std::size_t kOverhead = 64, kUnclean = 72, kLineEnds = 73, kCompression = 77;
}  // namespace at
inline constexpr std::string_view kLineEnds = "\n \r\n";  // a transfer as text changes them

inline constexpr std::uint32_t kFlagLineEnds = 1u << 0, kFlagRedundantDirectory = 1u << 1, kFlagZeroedGrains = 1u << 2;
inline constexpr std::uint32_t kFlagCompressed = 1u << 16, kFlagMarkers = 1u << 17;
inline constexpr std::uint32_t kKnownFlags =
    kFlagLineEnds | kFlagRedundantDirectory | kFlagZeroedGrains | kFlagCompressed | kFlagMarkers;
inline constexpr std::uint16_t kDeflate = 1;
inline constexpr std::uint64_t kDirectoryAtEnd = ~std::uint64_t{0};  // of the directory: a footer tells where it is

// Grain tables: 512 entries of 32 bits, each a sector. 1 reads as zeros where the header says so.
inline constexpr std::uint32_t kTableEntries = 512;
inline constexpr std::uint32_t kTableBytes = kTableEntries * 4, kTableSectors = kTableBytes / kSectorBytes;
inline constexpr std::uint32_t kUnallocatedGrain = 0, kZeroedGrain = 1;

// Markers of a streamOptimized extent: {u64 sectors or LBA, u32 bytes of a grain or 0, u32 type}.
inline constexpr std::size_t kGrainMarkerBytes = 12;
enum class MarkerType : std::uint32_t { kEndOfStream = 0, kTable = 1, kDirectory = 2, kFooter = 3 };

// Limits. Those that the specification leaves open are ours: QEMU takes grains to 1 GiB, and fewer entries to a table.
inline constexpr std::uint64_t kMinGrainSectors = 8, kMaxGrainSectors = (16u << 20) / kSectorBytes;
inline constexpr std::uint64_t kMinNewGrain = 4096, kMaxNewGrain = 65536;  // bytes, of images that we make
inline constexpr std::uint64_t kMaxSectors = (std::uint64_t{1} << 63) / kSectorBytes - 1;
inline constexpr std::uint64_t kMaxFileSectors = std::uint64_t{1} << 32;  // what a table's entry can name
inline constexpr std::uint64_t kMaxDescriptorBytes = 1u << 20;
inline constexpr std::size_t kMaxExtents = 1024;
inline constexpr std::size_t kMaxParentHint = 1023;
inline constexpr std::uint32_t kNoParent = 0xffffffff;  // the parentCID of a disk that has none

// As qemu-img lays a sparse file out: header, 20 sectors of descriptor, redundant directory and its tables, directory
// and its tables; the grains begin at the next multiple of their size.
inline constexpr std::uint64_t kDescriptorSector = 1, kDescriptorSectors = 20;
inline constexpr std::uint64_t kSplitSectors = (std::uint64_t{2} << 30) / kSectorBytes;

// The sizes that follow from capacity and grain, in sectors unless they say otherwise.
struct Geometry {
  std::uint64_t capacity = 0;
  std::uint64_t grain = 128;

  std::uint64_t grain_bytes() const { return grain * kSectorBytes; }
  std::uint64_t grains() const { return div_round_up(capacity, grain); }
  std::uint64_t tables() const { return div_round_up(grains(), kTableEntries); }
  std::uint64_t directory_sectors() const { return div_round_up(tables() * 4, kSectorBytes); }
  bool operator==(const Geometry&) const = default;
};

}  // namespace sluicebox::image::vmdk
