// changed_pages.h: the pages of a VHDX's file that change when it is told another parent, another size, or another
// place for its table of blocks. Knows: the regions as they lie in the file. Does not know: the log, through which the
// pages are written. Threads: pure but for what it reads of the file.
#pragma once

#include <vector>

#include "base/result.h"
#include "image/formats/vhdx/image_state.h"
#include "image/formats/vhdx/log.h"
#include "image/formats/vhdx/metadata.h"

namespace sluicebox::image::vhdx {

// All pages of an answer together are one change, which one entry of the log holds.

// Of a differencing image. kInvalidArgument where the region, or the log, has no room.
Result<std::vector<LogPage>> parent_pages(const ImageState& image, const ParentNames& names);
Result<std::vector<LogPage>> size_pages(const ImageState& image, std::uint64_t disk_bytes);
// Both region tables name `place` then, and are sound.
Result<std::vector<LogPage>> table_pages(const ImageState& image, const Region& place);

}  // namespace sluicebox::image::vhdx
