// landlock.h: a second line behind the mounts: no device nodes, no socket or signal out of the box.
// Knows: landlock. Threads: the calling thread only; mount(2) fails afterwards.
#pragma once

#include "base/result.h"

namespace sluicebox::walls {

// Whatever this kernel has of it; a kernel without it is no failure.
Status restrict_by_landlock();

}  // namespace sluicebox::walls
