#include <algorithm>
#include <array>

#include "image/formats/qcow2/writer.h"

namespace sluicebox::image::qcow2 {

Status Writer::flush() {
  if (failed_) return *failed_;
  auto outcome = flush_steps();
  if (!outcome.ok()) {
    if (outcome.error().code == ErrorCode::kImageCorrupt) mark_corrupt();
    failed_ = outcome.error();
  }
  return outcome;
}

Status Writer::flush_steps() {
  const auto pointers = [&] { return !dirty_tables_.empty() || !dirty_l1_.empty() || l1_moved_; };
  const bool counts = refcounts_.dirty_blocks() != 0 || refcounts_.table_dirty();
  if (!pointers() && !counts && !data_written_) return {};
  TRY(pad_file());
  packed_end_ = 0;  // a sector that something durable lies in is not written again
  TRY(refcounts_.write_blocks());
  TRY(refcounts_.write_moved_table());
  TRY(write_moved_l1());
  TRY(write_fresh_tables());
  TRY(image_.file.sync());
  data_written_ = false;
  kept_end_ = image_.file_end;  // from here on something on disk may point there
  if (refcounts_.table_dirty()) {
    TRY(refcounts_.write_table());
    TRY(image_.file.sync());
    for (const std::uint64_t cluster : refcounts_.take_retired()) released_.push_back(cluster);
  }
  if (pointers()) {
    TRY(write_pointers());
    TRY(image_.file.sync());
  }
  if (!released_.empty()) {
    TRY(lower_released());
    TRY(refcounts_.write_blocks());
    TRY(image_.file.sync());
  }
  return {};
}

Status Writer::write_fresh_tables() {
  for (const auto& table : dirty_tables_) {
    if (!table->fresh()) continue;
    TRY(image_.write(table->dirty_offset(), table->dirty_bytes()));
    table->written();
  }
  std::erase_if(dirty_tables_, [](const auto& table) { return !table->dirty(); });
  return {};
}

Status Writer::write_pointers() {
  for (const auto& table : dirty_tables_) {
    TRY(image_.write(table->dirty_offset(), table->dirty_bytes()));
    table->written();
  }
  dirty_tables_.clear();
  TRY(l1_moved_ ? write_l1_pointer() : write_l1_entries());
  dirty_l1_.clear();
  l1_moved_ = false;
  return {};
}

// The table in its new place, with what it points at: nobody reads it there yet.
Status Writer::write_moved_l1() {
  if (!l1_moved_) return {};
  std::vector<std::byte> raw(image_.l1.size() * 8);
  for (std::size_t i = 0; i < image_.l1.size(); ++i) store_be64(raw.data() + i * 8, image_.l1[i]);
  return image_.write(image_.header.l1_offset, raw);
}

// Length and offset are neighbours in the header's first sector: one write switches both.
Status Writer::write_l1_pointer() {
  std::array<std::byte, 12> pointer;
  store_be32(pointer.data(), image_.header.l1_size);
  store_be64(pointer.data() + 4, image_.header.l1_offset);
  return image_.write(at::kL1Size, pointer);
}

Status Writer::write_l1_entries() {
  constexpr std::uint64_t kEntriesPerSector = kSectorBytes / 8;
  for (auto it = dirty_l1_.begin(); it != dirty_l1_.end();) {
    const std::uint64_t first = *it / kEntriesPerSector * kEntriesPerSector;
    const std::uint64_t count = std::min<std::uint64_t>(kEntriesPerSector, image_.l1.size() - first);
    std::array<std::byte, kSectorBytes> sector;
    for (std::uint64_t i = 0; i < count; ++i) store_be64(sector.data() + i * 8, image_.l1[first + i]);
    TRY(image_.write(image_.header.l1_offset + first * 8, Bytes(sector).first(count * 8)));
    it = dirty_l1_.lower_bound(first + count);
  }
  return {};
}

Status Writer::lower_released() {
  for (const std::uint64_t cluster : released_) {
    const std::uint64_t left = TRY(refcounts_.lower(cluster));
    allocator_.lowered(cluster, left);
    if (left != 0) continue;
    const std::uint64_t offset = cluster << image_.geometry().cluster_bits;
    if (image_.metadata.first_in(offset, 1)) {
      image_.metadata.remove(offset);
      image_.l2_tables.forget(offset);
    }
  }
  released_.clear();
  return {};
}

}  // namespace sluicebox::image::qcow2
