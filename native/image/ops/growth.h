// growth.h: what has to lie in an image before its disk is made larger, so that the space gained reads as zeros.
// Knows: the block interface of one image and of what stands below it. Does not know: paths, locks, the new size's
// fate. Threads: one operation's thread.
#pragma once

#include <cstdint>
#include <vector>

#include "base/cancel.h"
#include "base/progress.h"
#include "base/result.h"
#include "image/block.h"

namespace sluicebox::image {

// Durable on return, and seen by nobody: the disk is as large as before until `image.resize(size)`. `below`: the layers
// that `image` stands on, nearest first. Phase reported: "zero", in bytes of `size`'s gain.
Status prepare_growth(Block& image, const std::vector<Block*>& below, std::uint64_t size, ProgressSink& progress,
                      const CancelToken& cancel);

}  // namespace sluicebox::image
