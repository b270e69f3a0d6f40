// block_map.h: where a dynamic VHD has a range of the disk: the table says for a block, the block's bitmap for a
// sector. Knows: what was loaded, and the bitmaps that a writer holds back. Does not know: the parent. Threads: find()
// from several at once while nobody writes.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "base/result.h"
#include "image/formats/vhd/image_state.h"

namespace sluicebox::image::vhd {

// A run of the disk that this image has, or has not.
struct Run {
  bool present = false;
  std::uint64_t length = 0;
  std::uint64_t host = 0;  // where in the file, if present
};

using Bitmap = std::vector<std::byte>;

class BlockMap {
 public:
  explicit BlockMap(ImageState& image) : image_(image) {}

  // `length` > 0, inside of the disk. kImageCorrupt where the table's entry cannot be right.
  Result<Run> find(std::uint64_t offset, std::uint64_t length) const;
  Result<Bitmap> bitmap(std::uint64_t block) const;
  Status require_sound(std::uint64_t block) const;

  std::uint64_t bitmap_at(std::uint64_t block) const { return std::uint64_t{image_.table[block]} * kSectorBytes; }
  std::uint64_t data_at(std::uint64_t block) const { return bitmap_at(block) + image_.header.bitmap_bytes(); }
  // Of blocks whose bitmap in the file is older.
  std::map<std::uint64_t, Bitmap>& pending() { return pending_; }

 private:
  ImageState& image_;
  std::map<std::uint64_t, Bitmap> pending_;
};

}  // namespace sluicebox::image::vhd
