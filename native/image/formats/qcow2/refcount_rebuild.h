// refcount_rebuild.h: a new refcount table and its blocks, made from counted references, behind the end of the file.
// Knows: an open image, what was counted. Threads: the one writer.
//
// The old structure is left as it is until the header's 12 bytes that name the new one are durable.
#pragma once

#include "base/result.h"
#include "image/formats/qcow2/image_state.h"
#include "image/formats/qcow2/survey.h"

namespace sluicebox::image::qcow2 {

// Whether the structure would not be too large. Beforehand, and to be relied on when it says yes.
bool rebuild_would_fit(const ImageState& image, const Survey& survey);
// False when the counts do not fit: in the image's width, or in the largest table.
Result<bool> rebuild_refcounts(ImageState& image, Survey& survey);

}  // namespace sluicebox::image::qcow2
