#include "image/formats/vhd/block_map.h"

#include <algorithm>

#include "base/checked.h"
#include "image/formats/vhd/sector_bitmap.h"

namespace sluicebox::image::vhd {

Status BlockMap::require_sound(std::uint64_t block) const {
  if (!image_.is_damaged(block)) return {};
  return image_.corrupt("the table of blocks places block " + std::to_string(block) + " at " +
                            std::to_string(bitmap_at(block)) + ", where something else is",
                        image_.header.table_offset + block * 4);
}

Result<Bitmap> BlockMap::bitmap(std::uint64_t block) const {
  if (const auto found = pending_.find(block); found != pending_.end()) return found->second;
  Bitmap bitmap(image_.header.bitmap_bytes());
  TRY(read_exact(image_.file, bitmap_at(block), bitmap, "a block's bitmap"));
  return bitmap;
}

Result<Run> BlockMap::find(std::uint64_t offset, std::uint64_t length) const {
  const std::uint64_t block_size = image_.header.block_size;
  std::uint64_t block = offset / block_size;
  TRY(require_sound(block));
  Run run;
  if (image_.table[block] == kAbsentBlock) {
    const std::uint64_t last = (offset + (length - 1)) / block_size;
    while (block < last && image_.table[block + 1] == kAbsentBlock) ++block;
    run.length = std::min(length, (block + 1) * block_size - offset);
    return run;
  }
  const std::uint64_t in_block = offset % block_size;
  const std::uint64_t end = std::min(in_block + length, block_size);
  const Bitmap bits = TRY(bitmap(block));
  const std::uint64_t first = in_block / kSectorBytes;
  run.present = sector_bit(bits, first);
  const std::uint64_t sectors = same_sectors(bits, first, div_round_up(end, kSectorBytes));
  run.length = std::min(end, (first + sectors) * kSectorBytes) - in_block;
  if (run.present) run.host = data_at(block) + in_block;
  return run;
}

}  // namespace sluicebox::image::vhd
