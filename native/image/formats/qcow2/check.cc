#include "image/formats/qcow2/check.h"
namespace sluicebox::image::qcow2 {
Result<CheckReport> check_qcow2(ImageState&, Repair, ProgressSink&, const CancelToken&) {
  return Error(ErrorCode::kUnsupported, "not yet");
}
}  // namespace sluicebox::image::qcow2
