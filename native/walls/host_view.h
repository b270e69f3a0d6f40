// host_view.h: the host's programs in a box whose root is the host's, and nothing else of the host.
// Knows: mounts, the list of host_etc.h. Threads: PID 1 before its first program.
#pragma once

#include "base/result.h"
#include "walls/rootfs.h"

namespace sluicebox::walls {

// Read-only views of the program directories, and an /etc of the box's own.
Status show_host(int root, const RootPlan& plan);

}  // namespace sluicebox::walls
