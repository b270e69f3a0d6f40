// layers.h: new layers over disks: above a box's own, and above a copy of another's.
// Knows: images, snapshots. Does not know: QEMU.
// Threads: a worker's.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/path_policy.h"
#include "box/record.h"
#include "box/snapshots.h"
#include "image/ops/context.h"

namespace sluicebox::box {

struct NewLayer {
  std::string name;              // in the box's directory
  std::vector<FileFacts> bases;  // under it, nearest first
  std::uint64_t size = 0;
};
// An empty one above `overlay`, which lies above `bases`; somebody may be writing to it. `folder`: the directory's
// path.
Result<NewLayer> stack_layer(int directory, const std::string& folder, std::size_t disk, const std::string& overlay,
                             std::uint64_t size, const std::vector<FileFacts>& bases, image::OperationContext& context);

// The disks of `to`, a copy of `from` in a directory of its own, as the snapshot has them: what is in from's directory
// is linked into to's, so neither needs the other any more. Notes them in `to`.
Status copy_disks(const SnapshotRecord& snapshot, const BoxRecord& from, int from_directory, BoxRecord& to,
                  int to_directory, const std::string& to_folder, image::OperationContext& context);

// The box's own disks as the snapshot has them, from their next start on.
Result<std::vector<DiskRecord>> restore_disks(const SnapshotRecord& snapshot, const BoxRecord& record, int directory,
                                              const std::string& folder, image::OperationContext& context);

}  // namespace sluicebox::box
