// check.h: counts every reference to every host cluster, compares with what is stored, and repairs.
// The counts of corruptions and leaks are what remains; what was repaired is counted apart, as qemu-img does.
// Knows: an open image, nothing in flight. Does not know: the cached writer (open it anew after a repair).
// Threads: the one writer; without repair, any one thread.
#pragma once

#include "base/cancel.h"
#include "base/progress.h"
#include "base/result.h"
#include "image/block.h"
#include "image/formats/qcow2/image_state.h"

namespace sluicebox::image::qcow2 {

Result<CheckReport> check_qcow2(ImageState& image, Repair repair, ProgressSink& progress, const CancelToken& cancel);
// Repairs everything, or writes nothing: then corruptions remain in the report.
Result<CheckReport> repair_whole(ImageState& image, ProgressSink& progress, const CancelToken& cancel);

}  // namespace sluicebox::image::qcow2
