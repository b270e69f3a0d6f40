// writer.h: changes what a guest sees of a dynamic or differencing VHD, in an order that a crash at any moment
// survives. Knows: the block map. Does not know: the parent's bytes. Threads: the one writer.
//
// Data goes to the file at once: into blocks that are there, or into new ones at the end, which nothing points at yet.
// Before a new block takes the footer's place, the footer is behind it: the file always ends in a footer, or in what no
// guest wrote. flush() makes the data durable, and then what reveals it: the table's entries and the bitmaps' bits.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "image/formats/vhd/block_map.h"
#include "image/formats/vhd/image_state.h"
#include "image/formats/vhd/parent.h"

namespace sluicebox::image::vhd {

class Writer {
 public:
  Writer(ImageState& image, BlockMap& map) : image_(image), map_(map), next_(image.ends.end_offset), revealed_(next_) {}

  // Whole sectors of the disk.
  Status write(std::uint64_t offset, Bytes data);
  Status write_zeros(std::uint64_t offset, std::uint64_t length);
  Status flush();
  void abandon();
  // A differencing image then has no block of its own.
  Status make_empty();
  // What a differencing image is to stand on: nothing makes it a dynamic one.
  struct Parent {
    Guid id = {};
    std::uint32_t time = 0;
    std::string path;
    std::optional<WrittenName> name = std::nullopt;  // absent: it is named as before
  };
  // In one step, durable on return. The footer in front, a sector, says which header counts: the new one is whole in
  // another place before it does, and goes where the old one was after that.
  Status change_parent(const std::optional<Parent>& parent);
  // Before the disk grows: writes may reach up to `disk_bytes` from here on, and nothing of before is there to be read.
  // A table of blocks that has no room where it lies moves behind the blocks.
  Status make_room(std::uint64_t disk_bytes);
  // In one step, durable on return: the footer in front says it. What a smaller disk had beyond its end goes after
  // that.
  Status set_disk_size(std::uint64_t disk_bytes);
  // How far writes may reach.
  std::uint64_t reach() const { return std::max(room_, image_.disk_bytes); }
  // Both footers are sound afterwards, and durable.
  Status mend_footers();
  // Drops what lies behind `end`, where nothing is in use, and puts the footer there; durable on return.
  Status cut(std::uint64_t end);

 private:
  Status begin();
  Status place(std::uint64_t block);
  Status show(std::uint64_t block, std::uint64_t begin, std::uint64_t end);
  Status write_table();
  Status reserve(std::uint64_t end);
  bool is_free(std::uint64_t begin, std::uint64_t end, TakenRange::By but) const;
  std::optional<std::uint64_t> place_of_name() const;
  Status write_header(std::uint64_t offset, const DynamicHeader& header);
  Status write_footers();
  Status point_footers_at(std::uint64_t header);
  std::uint64_t place_of_table(std::uint64_t bytes) const;
  Status fit_table(std::uint64_t blocks);
  Status write_new_table(std::uint64_t offset, std::uint64_t bytes);
  Status clear_entries(std::uint64_t first);
  Status clear_last_block(std::uint64_t disk_bytes);
  Status drop_beyond_end(std::uint64_t least_end);
  Status trim(std::uint64_t least_end);
  bool has_parent() const { return image_.footer.type == DiskType::kDifferencing; }

  ImageState& image_;
  BlockMap& map_;
  std::uint64_t next_;      // where the next block goes, and the footer is
  std::uint64_t revealed_;  // the same, up to the blocks that the file may point at
  bool written_ = false;
  std::set<std::uint64_t> changed_entries_;
  std::uint64_t room_ = 0;        // how large the disk is to be; 0: as it is
  std::uint64_t room_begin_ = 0;  // where the footer was before that
  bool is_sure_ = true;           // else a write failed, and what the file's table and footers say is not known
  std::vector<bool> full_;        // blocks whose bits are known to be set, all of them
};

}  // namespace sluicebox::image::vhd
