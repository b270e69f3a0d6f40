// snapshot_box.h: takes a snapshot of a box: one instant of its disks and, with memory, of its machine.
// Knows: boxes, layers, QMP. Does not know: what is made from it.
// Threads: a worker's, which waits.
//
// The layer that the box wrote to stays as it is from that instant on, and a new one above it takes what comes. The
// box's record names the new one before the guest can write to it: killed at any point, what it names holds everything.
#pragma once

#include <memory>
#include <string>

#include "box/box.h"
#include "box/snapshots.h"
#include "image/ops/context.h"

namespace sluicebox::box {

struct SnapshotRequest {
  std::string name;
  bool memory = false;
  std::string labels;  // the SDK's own
};

// Of a running machine or one that stands; `held`: this process has its lock. A box that runs goes on whether the
// snapshot failed or not. kSnapshotExists, kUnsupported for what has no disk of its own, kBoxState, kInUse.
Result<SnapshotRecord> snapshot_box(const std::shared_ptr<Box>& box, Reactor& reactor, const SnapshotRequest& request,
                                    const IsHeld& held, image::OperationContext& context);

// With each layer that nothing lies on any more; of a box that stands, those that only it lies on are merged.
// kSnapshotNotFound.
Status remove_snapshot(const std::shared_ptr<Box>& box, Reactor& reactor, const std::string& name, const IsHeld& held,
                       image::OperationContext& context);

}  // namespace sluicebox::box
