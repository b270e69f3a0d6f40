// check.h: compares a VHDX's table of blocks with its file.
// Knows: what was loaded. Writes a region table, and drops unused space at the end, if it may.
// Threads: one.
#pragma once

#include "image/block.h"
#include "image/formats/vhdx/image_state.h"
#include "image/formats/vhdx/writer.h"

namespace sluicebox::image::vhdx {

// `writer` is there if `repair` allows anything. What lies over something else is told and left as it is: nobody knows
// whose the bytes are. Space between blocks that nothing uses is told as well; at the end of the file it is given back.
Result<CheckReport> check_vhdx(ImageState& image, Repair repair, Writer* writer, ProgressSink& progress,
                               const CancelToken& cancel);

}  // namespace sluicebox::image::vhdx
