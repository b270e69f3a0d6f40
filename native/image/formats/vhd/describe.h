// describe.h: what info shows of a VHD.
// Knows: what was loaded. Threads: any, while nobody writes.
#pragma once

#include "image/block.h"
#include "image/formats/vhd/image_state.h"

namespace sluicebox::image::vhd {

LayerInfo describe_vhd(const ImageState& image);

}  // namespace sluicebox::image::vhd
