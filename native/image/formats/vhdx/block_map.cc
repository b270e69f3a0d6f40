#include "image/formats/vhdx/block_map.h"

#include <algorithm>

namespace sluicebox::image::vhdx {

namespace {

Status require_sound(const ImageState& image, std::uint64_t entry) {
  if (!image.is_damaged(entry)) return {};
  return image.corrupt("entry " + std::to_string(entry) + " of the table of blocks cannot be right",
                       image.regions.table.offset + entry * 8);
}

// MS-VHDX 2.5.1.1: what a block reads as that is not there.
Holds absence(BlockState state) { return state == BlockState::kNotPresent ? Holds::kNothing : Holds::kZeros; }

bool is_absent(BlockState state) { return state != BlockState::kPresent && state != BlockState::kPartlyPresent; }

// A long run costs several calls, for a bitmap is looked at piece by piece.
Result<Run> find_in_bitmap(const ImageState& image, std::uint64_t block, std::uint64_t in_block, std::uint64_t length) {
  const std::uint64_t bitmap_entry = image.shape.entry_of_bitmap(block);
  TRY(require_sound(image, bitmap_entry));
  const std::uint64_t sector_size = image.metadata.logical_sector;
  const std::uint64_t base = image.first_bit(block);
  const std::uint64_t first = base + in_block / sector_size;
  const std::uint64_t last = base + div_round_up(in_block + length, sector_size);
  const auto same = TRY(image.bitmaps.look(offset_of(image.table[bitmap_entry]), first, last));
  Run run;
  run.length = std::min(in_block + length, (first + same.sectors - base) * sector_size) - in_block;
  if (same.set) {
    run.holds = Holds::kData;
    run.host = offset_of(image.table[image.shape.entry_of_block(block)]) + in_block;
  }
  return run;
}

}  // namespace

Result<Run> find_run(const ImageState& image, std::uint64_t offset, std::uint64_t length) {
  const std::uint64_t block_size = image.metadata.block_size;
  std::uint64_t block = offset / block_size;
  const std::uint64_t in_block = offset % block_size;
  const std::uint64_t entry = image.shape.entry_of_block(block);
  TRY(require_sound(image, entry));
  const BlockState state = state_of(image.table[entry]);
  if (state == BlockState::kPartlyPresent) {
    return find_in_bitmap(image, block, in_block, std::min(length, block_size - in_block));
  }
  Run run{.holds = is_absent(state) ? absence(state) : Holds::kData, .length = 0, .host = 0};
  if (run.holds == Holds::kData) run.host = offset_of(image.table[entry]) + in_block;
  // As far as the blocks behind it hold the same: data that goes on where it ended.
  const std::uint64_t last = (offset + (length - 1)) / block_size;
  const std::uint64_t first = block;
  for (; block < last; ++block) {
    const std::uint64_t next = image.shape.entry_of_block(block + 1);
    const BlockState next_state = state_of(image.table[next]);
    if (image.is_damaged(next) || next_state == BlockState::kPartlyPresent) break;
    const Holds holds = is_absent(next_state) ? absence(next_state) : Holds::kData;
    if (holds != run.holds) break;
    const std::uint64_t follows = offset_of(image.table[entry]) + (block + 1 - first) * block_size;
    if (holds == Holds::kData && offset_of(image.table[next]) != follows) break;
  }
  run.length = std::min(length, (block + 1) * block_size - offset);
  return run;
}

}  // namespace sluicebox::image::vhdx
