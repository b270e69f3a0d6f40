// running_box.h: a box that runs already, by its keeper's socket: taken over from who left it, or used beside its
// owner. Knows: the keeper's messages, what owners leave. Does not know: states, homes. Threads: a worker's, which
// waits.
#pragma once

#include <chrono>
#include <cstdint>

#include "base/cancel.h"
#include "box/engine.h"

namespace sluicebox::box {

struct RunningBox {
  LaunchedBox box;
  bool is_ours = false;            // our hang-up ends it; else somebody else's does
  std::int64_t started_at_ms = 0;  // of the epoch
};

// `directory`: the box's. kInUse, with why: it cannot be had beside its owner, or not now.
Result<RunningBox> join_box(int directory, const CancelToken& cancel, std::chrono::steady_clock::time_point deadline);

}  // namespace sluicebox::box
