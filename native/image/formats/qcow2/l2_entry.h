// l2_entry.h: what one L2 entry says.
// Knows: the qcow2 specification, section "L2 table entry". Does not know: files, where metadata lies.
// Threads: pure functions.
#pragma once

#include <cstdint>

#include "image/formats/qcow2/layout.h"

namespace sluicebox::image::qcow2 {

enum class EntryKind : std::uint8_t { kUnallocated, kZero, kData, kCompressed };

struct L2Entry {
  EntryKind kind = EntryKind::kUnallocated;
  std::uint64_t host = 0;   // kZero: 0, or the cluster that is kept for later; kCompressed: any byte
  std::uint64_t bytes = 0;  // kCompressed: how many bytes from `host` may be read to inflate it
  bool copied = false;
  const char* damage = nullptr;  // why the entry must not be followed
};

// Of the descriptor of a compressed cluster: its lower bits are the offset, those above count sectors.
constexpr unsigned compressed_offset_bits(const Geometry& geometry) { return 62 - (geometry.cluster_bits - 8); }

inline L2Entry decode_l2(std::uint64_t raw, const Geometry& geometry, unsigned version) {
  L2Entry entry;
  entry.copied = (raw & kEntryCopied) != 0;
  if ((raw & kEntryCompressed) != 0) {
    const unsigned offset_bits = compressed_offset_bits(geometry);
    entry.kind = EntryKind::kCompressed;
    entry.host = raw & ((std::uint64_t{1} << offset_bits) - 1);
    const std::uint64_t more_sectors = (raw & (kEntryCompressed - 1)) >> offset_bits;
    entry.bytes = (more_sectors + 1) * kSectorBytes - entry.host % kSectorBytes;
    if (entry.host < geometry.cluster() || entry.host >= kMaxHostOffset) entry.damage = "an impossible offset";
    if (entry.copied) entry.damage = "a compressed cluster marked as copied";
    return entry;
  }
  entry.host = raw & kOffsetMask;
  const bool zero = (raw & kEntryReadsZero) != 0;
  entry.kind = zero ? EntryKind::kZero : entry.host != 0 ? EntryKind::kData : EntryKind::kUnallocated;
  if (geometry.in_cluster(entry.host) != 0) entry.damage = "an unaligned offset";
  if (zero && version < 3) entry.damage = "a zero flag in a version 2 image";
  return entry;
}

}  // namespace sluicebox::image::qcow2
