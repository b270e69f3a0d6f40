// merge_layers.h: takes layers out of the stacks under a box's disks that nobody needs by themselves any more.
// Knows: the commit and the rebase of images, records, snapshots. Does not know: QEMU, but through rebase_box().
// Threads: a worker's.
//
// A layer is spare when it lies right under the box's own overlay, or under others that are spare, and no snapshot lies
// on it. A box that was cloned from it has links to it and to all below, and does not notice.
#pragma once

#include <memory>

#include "box/box.h"
#include "image/ops/context.h"

namespace sluicebox::box {

// Of a box that stands, by a caller that has its layers_turn() and its lock. Each disk reads as before, at every
// moment.
Status merge_layers(const std::shared_ptr<Box>& box, image::OperationContext& context);

// Of a box in any state, where there are many: before one more is added to them.
Status merge_when_many(const std::shared_ptr<Box>& box, Reactor& reactor, const IsHeld& held,
                       image::OperationContext& context);

}  // namespace sluicebox::box
