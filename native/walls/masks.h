// masks.h: the box's /proc, of its own pid namespace, without what tells of the host or changes it.
// Knows: mounts. Threads: PID 1 of the pid namespace before its first program.
#pragma once

#include "base/result.h"

namespace sluicebox::walls {

Status make_proc(int root);

}  // namespace sluicebox::walls
