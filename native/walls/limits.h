// limits.h: what every process of the box has as its own limits, whatever the host's are.
// Threads: the calling thread's process.
#pragma once

#include <cstdint>

#include "base/result.h"

namespace sluicebox::walls {

// `processes`: 0 for none. A second line behind the cgroup's limit: it counts each user of the box apart.
Status set_limits(std::uint64_t processes);

}  // namespace sluicebox::walls
