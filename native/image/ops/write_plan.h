// write_plan.h: writes what a planner computed into a new file.
// Knows: files. Does not know: formats.
// Threads: one operation's worker.
#pragma once

#include "base/cancel.h"
#include "base/result.h"
#include "image/file.h"
#include "image/image_plan.h"

namespace sluicebox::image {

// `file` is empty; it is as long as the plan has it afterwards.
inline Status write_plan(File& file, const ImagePlan& plan, const CancelToken& cancel) {
  for (const ImagePlanWrite& write : plan.all()) {
    TRY(cancel.check());
    TRY(file.write_at(write.offset, write.bytes));
  }
  if (TRY(file.size()) < plan.minimum_file_size) TRY(file.truncate(plan.minimum_file_size));
  return {};
}

}  // namespace sluicebox::image
