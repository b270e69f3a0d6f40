// unnamed_blocks.h: space between what is used that could hold blocks, and that no table names.
// Knows: numbers, the report of a check. Does not know: formats.
// Threads: pure.
#pragma once

#include <cstdint>
#include <string>

#include "image/block.h"

namespace sluicebox::image {

// How many blocks would fit between `begin` and `end`; each is a leak.
inline std::uint64_t count_unnamed_blocks(CheckReport& report, std::uint64_t begin, std::uint64_t end,
                                          std::uint64_t block_bytes) {
  const std::uint64_t blocks = (end - begin) / block_bytes;
  if (blocks == 0) return 0;
  report.leaks += blocks;
  report.note("leaked-block", begin, "space for " + std::to_string(blocks) + " blocks that the table does not name");
  return blocks;
}

}  // namespace sluicebox::image
