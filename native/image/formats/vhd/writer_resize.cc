#include <algorithm>

#include "base/checked.h"
#include "image/formats/vhd/writer.h"

namespace sluicebox::image::vhd {

namespace {

constexpr std::uint64_t kTableBytesAtOnce = 1u << 20;

}  // namespace

// Entries beyond the disk's end are nobody's, and nobody sees the end of its last block: what a shrink that was cut
// short, or another tool, left there would come to light.
Status Writer::make_room(std::uint64_t disk_bytes) {
  TRY(begin());
  TRY(flush());
  if (room_ != 0) TRY(drop_beyond_end(room_begin_));
  const std::uint64_t had = image_.table.size();
  const std::uint64_t blocks = image_.blocks_of(disk_bytes);
  TRY(image_.tables.take((blocks - had) * 4));
  room_begin_ = next_;
  TRY(fit_table(blocks));
  room_ = disk_bytes;
  image_.table.resize(blocks, kAbsentBlock);
  full_.resize(blocks);
  TRY(clear_entries(had));
  return clear_last_block(disk_bytes);
}

// Behind the header or where it lies, if nothing else does; or else behind the blocks.
std::uint64_t Writer::place_of_table(std::uint64_t bytes) const {
  const std::uint64_t present = image_.header.table_offset;
  const std::uint64_t behind_header = image_.footer.data_offset + kHeaderBytes;
  // Until the change stands, the table that counts stays as it is.
  const bool is_apart = behind_header + bytes <= present || present + image_.header.table_bytes() <= behind_header;
  if (is_apart && is_free(behind_header, behind_header + bytes, TakenRange::By::kTable)) return behind_header;
  return is_free(present, present + bytes, TakenRange::By::kTable) ? present : next_;
}

// Others take only a table of as many blocks as the disk has. As with another parent, the footer in front says which
// header counts.
Status Writer::fit_table(std::uint64_t blocks) {
  if (blocks == image_.header.max_entries) return {};
  const std::uint64_t home = image_.footer.data_offset;
  DynamicHeader header = image_.header;
  header.max_entries = static_cast<std::uint32_t>(blocks);
  const std::uint64_t bytes = div_round_up(header.table_bytes(), kSectorBytes) * kSectorBytes;
  header.table_offset = place_of_table(bytes);
  const std::uint64_t header_at = next_ + (header.table_offset == next_ ? bytes : 0);
  const std::uint64_t end = header_at + kHeaderBytes;
  TRY(reserve(end));
  next_ = end;
  if (header.table_offset != image_.header.table_offset) TRY(write_new_table(header.table_offset, bytes));
  TRY(write_header(header_at, header));
  TRY(image_.file.sync());
  revealed_ = image_.ends.end_offset = end;
  TRY(point_footers_at(header_at));
  // The change stands. What follows is housekeeping.
  TRY(write_header(home, header));
  TRY(image_.file.sync());
  TRY(point_footers_at(home));
  image_.header = header;
  image_.take_table();
  return cut(header_at);
}

// As it is in memory; what pads its last sector is absent as well.
Status Writer::write_new_table(std::uint64_t offset, std::uint64_t bytes) {
  std::vector<std::byte> part(std::min(bytes, kTableBytesAtOnce));
  for (std::uint64_t done = 0; done < bytes; done += part.size()) {
    part.resize(std::min(bytes - done, kTableBytesAtOnce));
    for (std::uint64_t i = 0; i < part.size() / 4; ++i) {
      const std::uint64_t block = done / 4 + i;
      store_be32(part.data() + i * 4, block < image_.table.size() ? image_.table[block] : kAbsentBlock);
    }
    TRY(image_.file.write_at(offset + done, part));
  }
  return {};
}

// Those of the file from `first` on, which in memory are absent. Durable after a flush().
Status Writer::clear_entries(std::uint64_t first) {
  const std::uint64_t count = image_.table.size();
  std::vector<std::byte> part;
  for (std::uint64_t start = first; start < count; start += part.size() / 4) {
    part.resize(std::min((count - start) * 4, kTableBytesAtOnce));
    TRY(read_padded(image_.file, image_.header.table_offset + start * 4, part));
    for (std::uint64_t i = 0; i < part.size() / 4; ++i) {
      if (load_be32(part.data() + i * 4) != kAbsentBlock) changed_entries_.insert(start + i);
    }
    written_ = written_ || !changed_entries_.empty();
    TRY(write_table());
    changed_entries_.clear();
  }
  return {};
}

// Others do not look at a block's bitmap.
Status Writer::clear_last_block(std::uint64_t disk_bytes) {
  const std::uint64_t in_block = image_.disk_bytes % image_.header.block_size;
  const std::uint64_t block = image_.disk_bytes / image_.header.block_size;
  if (in_block == 0 || image_.table[block] == kAbsentBlock) return {};
  written_ = true;
  const std::uint64_t length =
      std::min<std::uint64_t>(image_.header.block_size - in_block, disk_bytes - image_.disk_bytes);
  return image::write_zeros(image_.file, map_.data_at(block) + in_block, length);
}

Status Writer::set_disk_size(std::uint64_t disk_bytes) {
  TRY(begin());
  TRY(flush());
  image_.footer.set_disk_bytes(disk_bytes);
  TRY(write_footers());
  const bool as_prepared = disk_bytes == room_;
  image_.disk_bytes = disk_bytes;
  room_ = 0;
  return as_prepared ? ok_status() : drop_beyond_end(0);
}

// The file stays as long as `least_end`.
Status Writer::drop_beyond_end(std::uint64_t least_end) {
  room_ = 0;
  const std::uint64_t count = image_.block_count();
  const std::uint64_t had = image_.table.size();
  for (std::uint64_t block = count; block < had; ++block) {
    if (image_.table[block] == kAbsentBlock) continue;
    image_.table[block] = kAbsentBlock;
    changed_entries_.insert(block);
  }
  is_sure_ = false;
  TRY(write_table());
  TRY(image_.file.sync());
  is_sure_ = true;
  changed_entries_.clear();
  image_.table.resize(count);
  full_.resize(count);
  image_.tables.give_back((had - count) * 4);
  TRY(fit_table(count));
  return trim(least_end);
}

Status Writer::trim(std::uint64_t least_end) {
  std::uint64_t end = least_end;
  for (const TakenRange& range : image_.taken) end = std::max(end, range.end);
  for (const std::uint32_t entry : image_.table) {
    if (entry == kAbsentBlock) continue;
    end = std::max(end, std::uint64_t{entry} * kSectorBytes + image_.header.stride());
  }
  end = checked_align_up(end, kSectorBytes).value_or(end);
  return end < next_ ? cut(end) : ok_status();
}

}  // namespace sluicebox::image::vhd
