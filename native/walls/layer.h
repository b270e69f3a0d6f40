// layer.h: the box's private layer, where all that it writes goes, and the directory under it.
// Knows: mounts. Does not know: what the root shows.
// Threads: PID 1 before its first program.
#pragma once

#include "base/result.h"
#include "base/unique_fd.h"
#include "walls/rootfs.h"

namespace sluicebox::walls {

// A bounded tmpfs, or the kept layer; mounted below the old root, which stays in reach as "/".
Result<UniqueFd> make_layer(const RootPlan& plan);

// Of a layer in memory that `root` is on.
Status resize_layer(int root, std::uint64_t bytes);

// The directory that lies under the layer, read-only.
Result<UniqueFd> lower_tree(const RootPlan& plan);

}  // namespace sluicebox::walls
