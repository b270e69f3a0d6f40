// host_view.h: the host's programs in a box whose root is the host's, and nothing else of the host.
// Knows: mounts, the list of host_etc.h. Threads: PID 1 before its first program.
#pragma once

#include <string>

#include "base/result.h"
#include "walls/rootfs.h"

namespace sluicebox::walls {

inline constexpr const char* kHostPrograms[] = {"usr", "opt", "bin", "sbin", "lib", "lib32", "lib64", "libx32"};

// Read-only views of the program directories, and an /etc of the box's own.
Status show_host(int root);

// Where boxes are kept may lie below a directory that is shown: an empty one covers it.
Status hide_home(int root, const std::string& home);

// The box's name in its /etc, and the home hidden.
Status finish_host_view(int root, const RootDetails& details);

}  // namespace sluicebox::walls
