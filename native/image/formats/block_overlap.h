// block_overlap.h: which of a table's blocks lie over one another.
// Knows: numbers. Does not know: formats.
// Threads: pure.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace sluicebox::image {

// Which part of the file a block takes, and which entry of the table says so.
struct PlacedBlock {
  std::uint64_t begin = 0, end = 0;
  std::uint32_t index = 0;
};

// Calls `overlaps(index)` for each block that shares a byte with another one, possibly more than once. Sorts `blocks`
// by their begin; each is compared with the one before it that reaches furthest, so the cost is the sort's.
template <typename Overlaps>
void find_overlaps(std::vector<PlacedBlock>& blocks, Overlaps overlaps) {
  std::ranges::sort(blocks, {}, &PlacedBlock::begin);
  std::size_t furthest = 0;
  for (std::size_t i = 1; i < blocks.size(); ++i) {
    if (blocks[i].begin < blocks[furthest].end) {
      overlaps(blocks[furthest].index);
      overlaps(blocks[i].index);
    }
    if (blocks[i].end > blocks[furthest].end) furthest = i;
  }
}

}  // namespace sluicebox::image
