// resize_box.h: makes a box's disk larger: by the image engine while the box stands, through its QEMU while it runs.
// Knows: boxes, disks, the resize of images. Does not know: queues, promises, partitions and file systems.
// Threads: a worker's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "box/box.h"
#include "image/ops/context.h"

namespace sluicebox::box {

struct ResizedBox {
  std::uint64_t from = 0, to = 0;  // bytes of the disk
};

// `size` is rounded up to 512. `held`: the caller has the box's lock (a box that was made and not started).
// kInvalidArgument for a disk that would get smaller: what a guest keeps at its end cannot be known. kBoxState for a
// box that is on its way up or down; kUnsupported for one without a disk of its own.
Result<ResizedBox> resize_box(const std::shared_ptr<Box>& box, Reactor& reactor, std::size_t disk, std::uint64_t size,
                              const IsHeld& held, image::OperationContext& context);

}  // namespace sluicebox::box
