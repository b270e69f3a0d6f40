// l2_entry.h: what one L2 entry says, of its cluster and of each unit in it.
// Knows: the qcow2 specification, sections "L2 table entry" and "Extended L2 Entries". Does not know: files, where
// metadata lies. Threads: pure functions.
//
// A standard entry is the case of one unit in a cluster, an extended one that of 32: nobody else tells them apart.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include "base/bytes.h"
#include "image/formats/qcow2/layout.h"

namespace sluicebox::image::qcow2 {

// As it lies in a table.
struct RawL2Entry {
  std::uint64_t descriptor = 0;
  std::uint64_t units = 0;  // the second half of an extended one: low bits allocated, high bits zeros; else 0

  bool operator==(const RawL2Entry&) const = default;
  bool empty() const { return descriptor == 0 && units == 0; }
};

inline RawL2Entry load_l2_entry(const std::byte* table, std::uint64_t index, const Geometry& geometry) {
  const std::byte* at = table + index * geometry.l2_entry_bytes();
  return {.descriptor = load_be64(at), .units = geometry.extended_l2 ? load_be64(at + 8) : 0};
}

inline void store_l2_entry(std::byte* table, std::uint64_t index, const RawL2Entry& raw, const Geometry& geometry) {
  std::byte* at = table + index * geometry.l2_entry_bytes();
  store_be64(at, raw.descriptor);
  if (geometry.extended_l2) store_be64(at + 8, raw.units);
}

enum class EntryKind : std::uint8_t { kUnallocated, kZero, kData, kCompressed };

struct L2Entry {
  bool compressed = false;
  std::uint64_t host = 0;   // 0: no cluster, else one that may be kept for later; compressed: any byte
  std::uint64_t bytes = 0;  // compressed: how many bytes from `host` may be read to inflate it
  // By unit, the first one lowest: which have their bytes in the cluster, which read as zeros. Compressed: none.
  std::uint32_t data = 0, zero = 0;
  bool copied = false;
  const char* damage = nullptr;  // why the entry must not be followed
  bool lost = false;             // the damage is to `host`: what it refers to is not known

  bool has_bytes() const { return compressed || data != 0; }
  EntryKind kind(unsigned unit) const {
    if (compressed) return EntryKind::kCompressed;
    if ((zero >> unit & 1) != 0) return EntryKind::kZero;
    return (data >> unit & 1) != 0 ? EntryKind::kData : EntryKind::kUnallocated;
  }
  // How many units from this one on are of its kind.
  unsigned alike_from(unsigned unit, const Geometry& geometry) const {
    const unsigned left = geometry.units_per_cluster() - unit;
    switch (kind(unit)) {
      case EntryKind::kCompressed:
        return left;
      case EntryKind::kZero:
        return std::min(left, static_cast<unsigned>(std::countr_one(zero >> unit)));
      case EntryKind::kData:
        return std::min(left, static_cast<unsigned>(std::countr_one(data >> unit)));
      case EntryKind::kUnallocated:
        break;
    }
    return std::min(left, static_cast<unsigned>(std::countr_zero((zero | data) >> unit)));
  }
};

// Of the descriptor of a compressed cluster: its lower bits are the offset, those above count sectors.
constexpr unsigned compressed_offset_bits(const Geometry& geometry) { return 62 - (geometry.cluster_bits - 8); }

inline L2Entry decode_l2(const RawL2Entry& raw, const Geometry& geometry, unsigned version) {
  L2Entry entry;
  const auto harm = [&](const char* what, bool lost) {
    entry.damage = what;
    entry.lost = entry.lost || lost;
  };
  entry.copied = (raw.descriptor & kEntryCopied) != 0;
  entry.compressed = (raw.descriptor & kEntryCompressed) != 0;
  if (entry.compressed) {
    const unsigned offset_bits = compressed_offset_bits(geometry);
    entry.host = raw.descriptor & ((std::uint64_t{1} << offset_bits) - 1);
    const std::uint64_t more_sectors = (raw.descriptor & (kEntryCompressed - 1)) >> offset_bits;
    entry.bytes = (more_sectors + 1) * kSectorBytes - entry.host % kSectorBytes;
    if (entry.host < geometry.cluster() || entry.host >= kMaxHostOffset) harm("an impossible offset", true);
    if (entry.copied) harm("a compressed cluster marked as copied", true);
    if (raw.units != 0) harm("subclusters of a compressed cluster", false);
    return entry;
  }
  entry.host = raw.descriptor & kOffsetMask;
  if (geometry.extended_l2) {
    entry.data = static_cast<std::uint32_t>(raw.units);
    entry.zero = static_cast<std::uint32_t>(raw.units >> 32);
    if ((entry.data & entry.zero) != 0) harm("a subcluster that is both allocated and zeros", false);
    if (entry.data != 0 && entry.host == 0) harm("allocated subclusters without a cluster", false);
  } else {
    entry.zero = (raw.descriptor & kEntryReadsZero) != 0 ? 1 : 0;
    entry.data = entry.zero == 0 && entry.host != 0 ? 1 : 0;
    if (entry.zero != 0 && version < 3) harm("a zero flag in a version 2 image", true);
  }
  if (geometry.in_cluster(entry.host) != 0) harm("an unaligned offset", true);
  return entry;
}

// Of one that is not compressed. A standard one that has a cluster and no zeros is data, whatever `data` says.
inline RawL2Entry encode_l2(const L2Entry& entry, const Geometry& geometry) {
  RawL2Entry raw{.descriptor = entry.host | (entry.copied ? kEntryCopied : 0)};
  if (geometry.extended_l2) {
    raw.units = std::uint64_t{entry.zero} << 32 | entry.data;
  } else if (entry.zero != 0) {
    raw.descriptor |= kEntryReadsZero;
  }
  return raw;
}

}  // namespace sluicebox::image::qcow2
