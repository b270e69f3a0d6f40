// caps.h: what root of the box may still do.
// Knows: capabilities. Does not know: who calls.
// Threads: the calling thread only.
#pragma once

#include "base/result.h"

namespace sluicebox::walls {

// The minimum, within the box's own user namespace: what a package manager, a service on port 80 and a change of user
// need. No mount, no network settings, no ptrace, no raw device. The bounding set is cut to it as well, nothing is
// inheritable or ambient.
//   chown dac_override fowner fsetid kill setgid setuid net_bind_service
Status keep_few_capabilities();

}  // namespace sluicebox::walls
