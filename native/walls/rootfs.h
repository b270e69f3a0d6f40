// rootfs.h: the file system that the box sees as its root.
// Knows: mounts, the two kinds of root, the layer. Does not know: processes, limits.
// Threads: PID 1 before its first program.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace sluicebox::walls {

struct RootPlan {
  bool host = true;  // else a directory's
  bool keep = false;
  std::uint64_t storage = 0;  // of the private layer, in bytes; a layer that is kept has none
  // Trees that the keeper took, with their ids mapped to the box's. Without one (an ordinary user has not the right to)
  // the place itself, to be taken from within.
  UniqueFd lower_tree;
  UniqueFd layer_tree;
  int lower_place = -1;
  int box_place = -1;
};

// What the box's order alone tells: a root may have been built ahead of it.
struct RootDetails {
  std::string hostname;
  std::string home;           // where the host keeps its boxes: never shown
  std::uint64_t storage = 0;  // of a layer in memory
};

struct NewRoot {
  UniqueFd root;
  UniqueFd shm;  // what /dev/shm is to be: within the same bound as the layer
};

// Built over the root of a mount namespace that is the caller's own. The old one stays in reach until enter_root().
Result<NewRoot> build_root(const RootPlan& plan);

// Pivots and lets go of everything else.
Status enter_root(int root);

// After that, from within.
Status finish_root(const RootPlan& plan, const RootDetails& details);

}  // namespace sluicebox::walls
