#include <algorithm>

#include "base/checked.h"
#include "image/formats/vhdx/changed_pages.h"
#include "image/formats/vhdx/writer.h"

namespace sluicebox::image::vhdx {

namespace {

constexpr std::uint64_t kEntriesPerPage = kLogSectorBytes / 8;
constexpr std::uint64_t kPagesAtOnce = 256;

}  // namespace

// Entries beyond the disk's end are nobody's, and nobody sees the end of its last block: what a shrink that was cut
// short, or another tool, left there would come to light.
Status Writer::make_room(std::uint64_t disk_bytes) {
  TRY(begin(Change::kDisk));
  TRY(flush());
  if (room_ != 0) TRY(drop_beyond_end(room_begin_));
  const TableShape larger = image_.shape_of(disk_bytes);
  const std::uint64_t had = image_.table.size();
  const std::uint64_t entries = std::max<std::uint64_t>(had, larger.entries());
  TRY(image_.tables.take((entries - had) * 8));
  if (entries * 8 > image_.regions.table.length) TRY(move_table(entries));
  room_begin_ = next_;
  room_ = disk_bytes;
  // A fixed image has a place for each block.
  std::uint64_t blocks_at = 0;
  if (image_.metadata.fixed) {
    blocks_at = TRY(grow((larger.blocks - image_.shape.blocks) * image_.metadata.block_size));
    TRY(image_.file.sync());
    revealed_ = next_;
  }
  image_.table.resize(entries);
  TRY(reset_entries(larger.end(), blocks_at));
  return clear_last_block(disk_bytes);
}

// Behind everything else, and whole before it counts. Both region tables, and so every reader, are told in one step of
// the log.
Status Writer::move_table(std::uint64_t entries) {
  const std::uint64_t bytes = checked_align_up(entries * 8, kMiB).value_or(kMaxTableBytes);
  const Region place{.offset = TRY(grow(bytes)), .length = static_cast<std::uint32_t>(bytes)};
  std::vector<std::byte> page(kLogSectorBytes);
  for (std::uint64_t first = 0; first < image_.table.size(); first += kEntriesPerPage) {
    const std::uint64_t count = std::min<std::uint64_t>(kEntriesPerPage, image_.table.size() - first);
    for (std::uint64_t i = 0; i < count; ++i) store_le64(page.data() + i * 8, image_.table[first + i]);
    TRY(image_.file.write_at(place.offset + first * 8, Bytes(page).first(count * 8)));
  }
  TRY(image_.file.sync());
  const std::vector<LogPage> pages = TRY(table_pages(image_, place));
  TRY(change_pages(pages));
  revealed_ = next_;
  std::erase_if(image_.taken, [&](const TakenRange& each) { return each.begin == image_.regions.table.offset; });
  image_.taken.push_back({place.offset, place.end()});
  image_.regions.table = place;
  image_.region_table_sound[0] = image_.region_table_sound[1] = true;
  return {};
}

// From the disk's end to `end`, in the file and in memory: blocks that lie one behind the other from `blocks_at` on, or
// that are not there (0). The bitmap of the disk's last chunk is in use, wherever it is told of.
Status Writer::reset_entries(std::uint64_t end, std::uint64_t blocks_at) {
  const std::uint64_t at_once = std::min<std::uint64_t>(most(), kPagesAtOnce) * kEntriesPerPage;
  for (std::uint64_t first = image_.shape.end(); first < end; first += at_once) {
    TRY(reset_batch(first, std::min(first + at_once, end), blocks_at));
  }
  return {};
}

Status Writer::reset_batch(std::uint64_t first, std::uint64_t last, std::uint64_t blocks_at) {
  const TableShape& shape = image_.shape;
  std::vector<std::byte> present((last - first) * 8);
  TRY(read_exact(image_.file, image_.regions.table.offset + first * 8, present, "the vhdx table of blocks"));
  std::vector<std::uint64_t> entries;
  for (std::uint64_t i = first; i < last; ++i) {
    const bool bitmap = shape.is_bitmap(i);
    if (bitmap && i < shape.entries()) continue;
    std::uint64_t wanted = 0;
    if (blocks_at != 0 && !bitmap) {
      const std::uint64_t block = i - i / (shape.chunk_blocks + 1);
      wanted = entry_of(BlockState::kPresent, blocks_at + (block - shape.blocks) * image_.metadata.block_size);
    }
    image_.table[i] = wanted;
    if (load_le64(present.data() + (i - first) * 8) != wanted) entries.push_back(i);
  }
  return change_entries(entries, {});
}

Status Writer::clear_last_block(std::uint64_t disk_bytes) {
  const std::uint64_t block_size = image_.metadata.block_size;
  const std::uint64_t end = image_.metadata.disk_bytes;
  const std::uint64_t in_block = end % block_size;
  if (in_block == 0) return {};
  const std::uint64_t entry = image_.shape.entry_of_block(end / block_size);
  if (!image_.has_place(entry)) return {};
  written_ = true;
  const std::uint64_t length = std::min(block_size - in_block, disk_bytes - end);
  return image::write_zeros(image_.file, offset_of(image_.table[entry]) + in_block, length);
}

Status Writer::set_disk_size(std::uint64_t disk_bytes) {
  TRY(begin(Change::kDisk));
  TRY(flush());
  const std::vector<LogPage> pages = TRY(size_pages(image_, disk_bytes));
  TRY(change_pages(pages));
  const bool as_prepared = disk_bytes == room_;
  image_.metadata.disk_bytes = disk_bytes;
  image_.shape = image_.shape_of(disk_bytes);
  room_ = 0;
  return as_prepared ? ok_status() : drop_beyond_end(0);
}

// The file stays as long as `least_end`.
Status Writer::drop_beyond_end(std::uint64_t least_end) {
  room_ = 0;
  const std::uint64_t had = image_.table.size();
  TRY(reset_entries(had, 0));
  image_.table.resize(image_.shape.entries());
  image_.tables.give_back((had - image_.table.size()) * 8);
  return trim(least_end);
}

Status Writer::trim(std::uint64_t least_end) {
  std::uint64_t end = least_end;
  for (const TakenRange& range : image_.taken) end = std::max(end, range.end);
  for (std::uint64_t i = 0; i < image_.table.size(); ++i) {
    if (image_.has_place(i)) end = std::max(end, offset_of(image_.table[i]) + image_.bytes_of(i));
  }
  end = checked_align_up(end, kMiB).value_or(end);
  return end < next_ ? cut(end) : ok_status();
}

}  // namespace sluicebox::image::vhdx
