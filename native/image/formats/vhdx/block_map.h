// block_map.h: where a VHDX has a range of the disk: the table says for a block, a chunk's bitmap for a sector.
// Knows: what was loaded. Does not know: the parent.
// Threads: find() from several at once while nobody writes.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "image/formats/vhdx/image_state.h"

namespace sluicebox::image::vhdx {

enum class Holds : std::uint8_t { kNothing, kZeros, kData };

// A run of the disk of which the image holds the same.
struct Run {
  Holds holds = Holds::kNothing;
  std::uint64_t length = 0;
  std::uint64_t host = 0;  // where in the file, if data
};

// `length` > 0, inside of the disk. kImageCorrupt where an entry of the table cannot be right.
Result<Run> find_run(const ImageState& image, std::uint64_t offset, std::uint64_t length);

}  // namespace sluicebox::image::vhdx
