// writer.h: changes what a guest sees of a VHDX, in an order that a crash at any moment survives.
// Knows: what was loaded. Does not know: a parent's bytes.
// Threads: the one writer.
//
// Before anything else a log is replayed into the file, and the header gets new ids: others then know that the file,
// and the disk, are not what they were. Data goes to the file at once: into blocks that are there, or into new ones at
// the end, which nothing points at yet. flush() makes the data durable, and then changes what reveals it, the table of
// blocks and the sector bitmaps, through the log: what is to be changed, durable in the log; the header names the log;
// the change; the header names none. In a differencing image a block that is written in part is partly present, and its
// bitmap has a bit for each sector that is not the parent's.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "base/result.h"
#include "image/formats/vhdx/image_state.h"
#include "image/formats/vhdx/log.h"

namespace sluicebox::image::vhdx {

class Writer {
 public:
  explicit Writer(ImageState& image) : image_(image) {}

  // Whole sectors of the disk.
  Status write(std::uint64_t offset, Bytes data);
  Status write_zeros(std::uint64_t offset, std::uint64_t length);
  Status flush();
  void abandon();
  // A differencing image then has no block of its own.
  Status make_empty();
  // A differencing image then names this parent: one step of the log, durable on return.
  Status change_parent(const ParentNames& names);
  // Before the disk grows: writes may reach up to `disk_bytes` from here on, and nothing of before is there to be read.
  // A table of blocks that has to be larger than its region moves to the end of the file.
  Status make_room(std::uint64_t disk_bytes);
  // One step of the log, durable on return. What a smaller disk had beyond its end goes after that.
  Status set_disk_size(std::uint64_t disk_bytes);
  // How far writes may reach.
  std::uint64_t reach() const { return std::max(room_, image_.metadata.disk_bytes); }
  // What is to change: the file alone, or what a guest sees as well.
  enum class Change : std::uint8_t { kFile, kDisk };
  // What has to be before anything is written; again and again it does nothing.
  Status begin(Change change);
  // Both region tables are sound afterwards, and durable.
  Status mend_region_tables();
  // Drops what lies behind `end`, where nothing is in use; durable on return.
  Status cut(std::uint64_t end);

 private:
  Status prepare_file();
  Status write_part(std::uint64_t block, std::uint64_t in_block, Bytes data);
  bool covers(std::uint64_t block, std::uint64_t in_block, std::uint64_t length) const;
  Result<std::uint64_t> grow(std::uint64_t bytes);
  Status place(std::uint64_t block);
  Status place_partly(std::uint64_t block);
  Status show(std::uint64_t block, std::uint64_t begin, std::uint64_t end);
  Status change_bits(std::uint64_t block, std::uint64_t first, std::uint64_t last, bool set);
  void set_entry(std::uint64_t entry, BlockState state, std::uint64_t offset);
  Status update_header(const Header& header);
  Status write_header_copy(Header header);
  Status reveal();
  Status change_entries(std::span<const std::uint64_t> entries, std::vector<LogPage> pages);
  std::uint64_t page_of(std::uint64_t entry) const;
  Status change_pages(std::span<const LogPage> pages);
  Status apply_pages(Header header, std::span<const LogPage> pages);
  Status move_table(std::uint64_t entries);
  Status reset_entries(std::uint64_t end, std::uint64_t blocks_at);
  Status reset_batch(std::uint64_t first, std::uint64_t last, std::uint64_t blocks_at);
  Status clear_last_block(std::uint64_t disk_bytes);
  Status drop_beyond_end(std::uint64_t least_end);
  Status trim(std::uint64_t least_end);
  std::size_t most() const { return most_pages(image_.header.log_length); }

  ImageState& image_;
  bool begun_ = false, disk_begun_ = false;
  bool written_ = false;
  std::uint64_t next_ = 0;                   // where the next block goes: the file's end
  std::uint64_t revealed_ = 0;               // the same, up to the blocks that the file may point at
  std::set<std::uint64_t> changed_entries_;  // of the table
  std::uint64_t room_ = 0;                   // how large the disk is to be; 0: as it is
  std::uint64_t room_begin_ = 0;             // where the file ended before that
  std::optional<Error> failed_;              // a log was named, and how far its change came is not known
};

}  // namespace sluicebox::image::vhdx
