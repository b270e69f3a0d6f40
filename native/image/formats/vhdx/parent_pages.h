// parent_pages.h: the pages of a VHDX's metadata region that change when it is told another parent.
// Knows: the region as it lies in the file. Does not know: the log, through which they are written.
// Threads: pure but for what it reads of the file.
#pragma once

#include <vector>

#include "base/result.h"
#include "image/formats/vhdx/image_state.h"
#include "image/formats/vhdx/log.h"
#include "image/formats/vhdx/metadata.h"

namespace sluicebox::image::vhdx {

// Of a differencing image. All of them together are one change. kInvalidArgument where the region, or the log, has no
// room.
Result<std::vector<LogPage>> parent_pages(const ImageState& image, const ParentNames& names);

}  // namespace sluicebox::image::vhdx
