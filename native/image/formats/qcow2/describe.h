// describe.h: what `info` tells of a qcow2 image.
// Knows: the header and the snapshot table. Threads: pure.
#pragma once

#include "image/block.h"
#include "image/formats/qcow2/image_state.h"

namespace sluicebox::image::qcow2 {

LayerInfo describe(const ImageState& image);

}  // namespace sluicebox::image::qcow2
