// rebase_box.h: moves a box's disk to another base: by the image engine while the box stands, through its QEMU while it
// runs. Knows: boxes, disks, the rebase of images. Does not know: queues, promises. Threads: a worker's.
#pragma once

#include <chrono>
#include <memory>
#include <optional>

#include "box/box.h"
#include "image/ops/rebase.h"

namespace sluicebox::box {

struct RebasedBox {
  image::RebaseResult result;
  std::optional<std::chrono::microseconds> paused;  // of a running box: how long its guest stood still
};

// `held`: the caller has the box's lock (a box that was made and not started). kBoxState for a box that is on its way
// up or down, and in unsafe mode for one that runs; kUnsupported for one without a disk of its own.
Result<RebasedBox> rebase_box(const std::shared_ptr<Box>& box, Reactor& reactor, std::size_t disk,
                              const image::RebaseOptions& options, const IsHeld& held,
                              image::OperationContext& context);

// The same for one that stands, by a caller that has its layers_turn() and its lock.
Result<RebasedBox> rebase_standing(const std::shared_ptr<Box>& box, std::size_t disk,
                                   const image::RebaseOptions& options, image::OperationContext& context);

}  // namespace sluicebox::box
