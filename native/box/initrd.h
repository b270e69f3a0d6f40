// initrd.h: what a virtual machine's kernel finds when it starts: the agent as /init, and the modules that it loads.
// Knows: cpio, which drivers a machine of ours has. Does not know: QEMU, what the agent does.
// Threads: any.
#pragma once

#include "base/result.h"
#include "base/unique_fd.h"
#include "box/kernel.h"

namespace sluicebox::box {

// A cpio archive (newc, not compressed) in sealed memory: /init, /dev/console, /modules/*.ko and /modules/order, the
// files' names in the order to load them. Equal input gives equal bytes.
Result<UniqueFd> build_initrd(const GuestKernel& kernel, int agent_binary_fd);

}  // namespace sluicebox::box
