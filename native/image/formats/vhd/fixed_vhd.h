// fixed_vhd.h: a fixed VHD as a Block: the disk's bytes from the file's first, and a footer behind them.
// Knows: one file. Threads: as block.h.
#pragma once

#include <memory>

#include "image/block.h"
#include "image/formats/vhd/image_state.h"

namespace sluicebox::image::vhd {

std::unique_ptr<Block> make_fixed_vhd(std::unique_ptr<ImageState> image, bool writable);

}  // namespace sluicebox::image::vhd
