// writer.h: changes what a guest sees of a VHDX, in an order that a crash at any moment survives.
// Knows: what was loaded. Does not know: a parent's bytes: differencing images are not written.
// Threads: the one writer.
//
// Before anything else a log is replayed into the file, and the header gets new ids: others then know that the file,
// and the disk, are not what they were. Data goes to the file at once: into blocks that are there, or into new ones at
// the end, which nothing points at yet. flush() makes the data durable, and then changes the table of blocks through
// the log: what is to be changed, durable in the log; the header names the log; the change; the header names none.
#pragma once

#include <cstdint>
#include <set>
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
  Status place(std::uint64_t block);
  Status update_header(const Header& header);
  Status write_header_copy(Header header);
  Status change_table();
  Result<LogPage> table_page(std::uint64_t offset) const;
  Status change_pages(std::span<const LogPage> pages);

  ImageState& image_;
  bool begun_ = false, disk_begun_ = false;
  bool written_ = false;
  std::uint64_t next_ = 0;                 // where the next block goes: the file's end
  std::uint64_t revealed_ = 0;             // the same, up to the blocks that the file may point at
  std::set<std::uint64_t> changed_pages_;  // of the table, by their place in the file
};

}  // namespace sluicebox::image::vhdx
