#include <algorithm>
#include <array>

#include "base/checked.h"
#include "image/formats/qcow2/mapping.h"
#include "image/formats/qcow2/writer.h"

namespace sluicebox::image::qcow2 {

// What a shrink that was cut short, or another tool, left mapped there would come to light again.
Status Writer::make_room(std::uint64_t disk_bytes) {
  const Geometry& geometry = image_.geometry();
  TRY(unmap_from(image_.header.size));
  return guarded(grow_l1(geometry.l1_entries_for(disk_bytes)));
}

// In memory; flush() writes the new table whole and then the header's pointer to it.
Status Writer::grow_l1(std::uint64_t entries) {
  if (entries <= image_.l1.size()) return {};
  const Geometry& geometry = image_.geometry();
  TRY(image_.tables.take((entries - image_.l1.size()) * 8));
  const ClusterRun place = TRY(allocator_.allocate_row(geometry.clusters_for(entries * 8)));
  const std::uint64_t old_first = image_.header.l1_offset >> geometry.cluster_bits;
  const std::uint64_t old_clusters = geometry.clusters_for(std::uint64_t{image_.header.l1_size} * 8);
  for (std::uint64_t i = 0; i < old_clusters; ++i) released_.push_back(old_first + i);
  for (std::uint64_t i = 0; i < place.clusters; ++i) {
    image_.metadata.insert(place.offset + (i << geometry.cluster_bits));
  }
  // Nothing may be put where the table will be, from here on.
  image_.file_end = std::max(image_.file_end, place.offset + entries * 8);
  image_.l1.resize(entries);
  image_.header.l1_offset = place.offset;
  image_.header.l1_size = static_cast<std::uint32_t>(entries);
  l1_moved_ = true;
  return {};
}

Status Writer::set_disk_size(std::uint64_t bytes) {
  TRY(prepare());
  TRY(flush());
  std::array<std::byte, 8> raw;
  store_be64(raw.data(), bytes);
  Status outcome = image_.write(at::kSize, raw);
  if (outcome.ok()) outcome = image_.file.sync();
  // Which of the two sizes the disk has now is not known.
  if (!outcome.ok()) failed_ = outcome.error();
  TRY(std::move(outcome));
  image_.header.size = bytes;
  return {};
}

Status Writer::unmap_from(std::uint64_t offset) {
  TRY(prepare());
  TRY(flush());  // so that no table which goes now waits to be written
  const std::uint64_t span = image_.geometry().l2_span();
  const auto first = checked_align_up(offset, image_.geometry().unit());
  if (!first) return {};
  for (std::uint64_t at = *first; at / span < image_.l1.size(); at = (at / span + 1) * span) {
    if ((image_.l1[at / span] & kOffsetMask) == 0) continue;
    TRY(guarded(at % span == 0 ? unmap_table(at / span) : unmap_in_table(at)));
    TRY(relieve());
  }
  return {};
}

// A whole table goes by its L1 entry alone.
Status Writer::unmap_table(std::uint64_t l1_index) {
  const auto table = TRY(load_l2(image_, l1_index));
  const std::uint64_t cluster = table->offset() >> image_.geometry().cluster_bits;
  const std::uint64_t count = TRY(refcounts_.get(cluster));
  if (count == 0) return image_.corrupt("an L2 table in use has no reference count", table->offset());
  for (std::uint64_t i = 0; i < image_.geometry().l2_entries(); ++i) {
    if (!raw_entry(*table, i).empty()) TRY(release_entry(*table, i));
  }
  if (count != 1) image_.metadata.remove(table->offset());  // from here on it is the snapshots' alone
  released_.push_back(cluster);
  image_.l1[l1_index] = 0;
  dirty_l1_.insert(l1_index);
  return {};
}

// The rest of the table that maps `offset`.
Status Writer::unmap_in_table(std::uint64_t offset) {
  const Geometry& geometry = image_.geometry();
  const auto table = TRY(table_for(offset / geometry.l2_span()));
  std::uint64_t begin = geometry.in_cluster(offset);
  std::uint64_t at = offset - begin;
  for (std::uint64_t i = at % geometry.l2_span() >> geometry.cluster_bits; i < geometry.l2_entries(); ++i) {
    const std::uint32_t units = geometry.units_in(begin, geometry.cluster());
    if (!raw_entry(*table, i).empty()) TRY(clear_units(*table, i, at, units, false));
    at += geometry.cluster();
    begin = 0;
  }
  return {};
}

Status Writer::release_entry(const CachedTable& table, std::uint64_t index) {
  const L2Entry entry = TRY(entry_at(table, index));
  return release(entry);
}

// Where a stored count may be wrong, the file keeps its length: what it ends with may be somebody's.
Status Writer::trim() {
  TRY(prepare());
  TRY(flush());
  if (!allocator_.found_end()) return {};
  TRY(drop_empty_blocks());
  const Geometry& geometry = image_.geometry();
  std::uint64_t end = *allocator_.found_end();
  for (std::uint64_t index = image_.refcount_table.size(); index-- > 0;) {
    if (image_.refcount_table[index] == 0) continue;
    end = std::max(end, (image_.refcount_table[index] >> geometry.cluster_bits) + 1);
    const auto highest = TRY(refcounts_.highest_counted(index));
    if (!highest) continue;
    end = std::max(end, *highest + 1);
    break;
  }
  const std::uint64_t size = end << geometry.cluster_bits;
  if (size >= TRY(image_.file.size())) return {};
  TRY(image_.file.truncate(size));
  image_.file_end = kept_end_ = size;
  return image_.file.sync();
}

// A block at the end of the file that counts nothing besides itself would keep the file as long as it is. One that
// another block counts may have been the last that kept the other: hence the rounds.
Status Writer::drop_empty_blocks() {
  const Geometry& geometry = image_.geometry();
  for (bool dropped = true; dropped;) {
    dropped = false;
    for (std::uint64_t index = image_.refcount_table.size(); index-- > 0;) {
      if (image_.refcount_table[index] == 0) continue;
      if (TRY(refcounts_.highest_counted(index))) break;
      const std::uint64_t cluster = refcounts_.drop_block(index);
      dropped = true;
      if (cluster / geometry.refcounts_per_block() != index) {
        released_.push_back(cluster);
        continue;
      }
      image_.metadata.remove(cluster << geometry.cluster_bits);
      allocator_.lowered(cluster, 0);
    }
    TRY(flush());
  }
  return {};
}

}  // namespace sluicebox::image::qcow2
