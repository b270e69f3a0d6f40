// layout.h: the facts and limits of the qcow2 format, as the planner, reader, writer and checker all use them.
// Knows: the qcow2 specification (docs/interop/qcow2.txt of QEMU). Does not know: files.
// Threads: constants and values only.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sluicebox::image::qcow2 {

inline constexpr std::uint32_t kMagic = 0x514649fb;  // "QFI\xfb"

// Byte offsets in the header (section "Header").
namespace at {
inline constexpr std::size_t kMagic = 0, kVersion = 4, kBackingOffset = 8, kBackingLength = 16, kClusterBits = 20;
inline constexpr std::size_t kSize = 24, kCryptMethod = 32, kL1Size = 36, kL1Offset = 40, kRefcountTableOffset = 48;
inline constexpr std::size_t kRefcountTableClusters = 56, kSnapshotCount = 60, kSnapshotsOffset = 64;
inline constexpr std::size_t kIncompatible = 72, kCompatible = 80, kAutoclear = 88, kRefcountOrder = 96;
inline constexpr std::size_t kHeaderLength = 100, kCompressionType = 104;
}  // namespace at

inline constexpr std::size_t kHeaderBytesV2 = 72, kHeaderBytesV3Min = 104, kHeaderBytesV3 = 112;
inline constexpr std::size_t kSectorBytes = 512;  // what a disk writes whole or not at all

enum class Incompatible : std::uint64_t {
  kDirty = 1u << 0,
  kCorrupt = 1u << 1,
  kDataFile = 1u << 2,
  kCompression = 1u << 3,
  kExtendedL2 = 1u << 4,
};
inline constexpr std::uint64_t kKnownIncompatible = 0x1f;
inline constexpr std::uint64_t kLazyRefcounts = 1u << 0;  // compatible
inline constexpr std::uint64_t kAutoclearBitmaps = 1u << 0, kAutoclearRawDataFile = 1u << 1;

namespace extension {
inline constexpr std::uint32_t kEnd = 0, kBackingFormat = 0xe2792aca, kFeatureNames = 0x6803f857;
inline constexpr std::uint32_t kBitmaps = 0x23852875, kLuks = 0x0537be77, kDataFile = 0x44415441;
}  // namespace extension
inline constexpr std::size_t kFeatureNameBytes = 48;  // type, bit, name

// Limits. Those that the specification leaves open are the ones that QEMU enforces.
inline constexpr unsigned kMinClusterBits = 9, kMaxClusterBits = 21;
inline constexpr unsigned kMinExtendedClusterBits = 14;
inline constexpr std::size_t kMaxBackingPath = 1023;
inline constexpr std::size_t kMaxBackingFormat = 15;  // what other readers keep a format name in
inline constexpr std::uint64_t kMaxL1Entries = (32u << 20) / 8;
inline constexpr std::uint64_t kMaxRefcountTableBytes = 8u << 20;
inline constexpr std::uint64_t kMaxSnapshots = 65536, kMaxSnapshotTableBytes = 64u << 20, kMaxSnapshotExtra = 1024;
inline constexpr std::uint64_t kMaxSnapshotText = 1u << 20;  // ids and names of one image that are shown
inline constexpr std::uint64_t kBitmapEntryBytes = 24;       // of the directory, before the name
inline constexpr std::uint64_t kMaxBitmaps = 65535, kMaxBitmapDirectoryBytes = kMaxBitmaps * 1024;
inline constexpr std::uint64_t kMaxBitmapBytes = 512u << 20;             // of one bitmap's bits
inline constexpr std::uint64_t kMaxHostOffset = std::uint64_t{1} << 56;  // exclusive

// Table entries (sections "L1 table entry", "Standard Cluster Descriptor", "Refcount table entry").
inline constexpr std::uint64_t kOffsetMask = 0x00fffffffffffe00;
inline constexpr std::uint64_t kEntryCopied = std::uint64_t{1} << 63, kEntryCompressed = std::uint64_t{1} << 62,
                               kEntryReadsZero = 1;
inline constexpr std::uint64_t kL1Reserved = ~(kOffsetMask | kEntryCopied);
inline constexpr std::uint64_t kL2Reserved = ~(kOffsetMask | kEntryCopied | kEntryCompressed | kEntryReadsZero);
// Of an extended entry, whose second half says what reads as zeros.
inline constexpr std::uint64_t kExtendedL2Reserved = kL2Reserved | kEntryReadsZero;
inline constexpr std::uint64_t kRefcountOffsetMask = 0xfffffffffffffe00;

// The sizes that follow from cluster_bits, refcount_order and how much an L2 entry tells.
struct Geometry {
  unsigned cluster_bits = 16;
  unsigned refcount_order = 4;
  bool extended_l2 = false;  // an entry has two halves and tells 32 units of its cluster apart; else the cluster is one

  std::uint64_t cluster() const { return std::uint64_t{1} << cluster_bits; }
  // What is mapped, written and zeroed whole: a subcluster, or the cluster.
  unsigned units_per_cluster() const { return extended_l2 ? 32 : 1; }
  std::uint64_t unit() const { return cluster() / units_per_cluster(); }
  // The units, as bits, that bytes from `begin` to `end` of a cluster touch.
  std::uint32_t units_in(std::uint64_t begin, std::uint64_t end) const {
    const std::uint64_t first = begin / unit();
    const std::uint64_t last = (end + unit() - 1) / unit();
    return static_cast<std::uint32_t>((std::uint64_t{1} << last) - (std::uint64_t{1} << first));
  }
  std::uint32_t all_units() const { return units_in(0, cluster()); }
  std::uint64_t l2_entry_bytes() const { return extended_l2 ? 16 : 8; }
  std::uint64_t l2_entries() const { return cluster() / l2_entry_bytes(); }
  std::uint64_t l2_span() const { return l2_entries() << cluster_bits; }  // guest bytes of one L1 entry
  std::uint64_t refcounts_per_block() const { return std::uint64_t{1} << (cluster_bits + 3 - refcount_order); }
  std::uint64_t max_refcount() const {
    return refcount_order == 6 ? ~std::uint64_t{0} : (std::uint64_t{1} << (1u << refcount_order)) - 1;
  }
  std::uint64_t in_cluster(std::uint64_t offset) const { return offset & (cluster() - 1); }
  std::uint64_t clusters_for(std::uint64_t bytes) const {
    return (bytes >> cluster_bits) + (in_cluster(bytes) != 0 ? 1 : 0);
  }
  std::uint64_t l1_entries_for(std::uint64_t disk_bytes) const {
    const std::uint64_t span = l2_span();
    return disk_bytes / span + (disk_bytes % span != 0 ? 1 : 0);
  }
  // An offset that a table may hold: aligned, within 2^56, not the header's cluster.
  bool valid_cluster_offset(std::uint64_t offset) const {
    return offset != 0 && in_cluster(offset) == 0 && offset < kMaxHostOffset;
  }
};

}  // namespace sluicebox::image::qcow2
