// machine_root.h: the root file system of a virtual machine: from its disk, with a private layer or without, and what
// every root holds beside.
// Knows: disks, mounts. Does not know: sessions, what the machine is for.
// Threads: one.
#pragma once

#include "base/result.h"
#include "protocol/messages.h"

namespace sluicebox::agent {

// What the agent itself needs, in the initrd: /dev, /proc, /sys.
Status mount_basics();

// Makes the machine's disk the root, if it has one, and mounts in it what programs expect. An error's message is the
// step.
Status enter_root(const protocol::Machine& machine);

// At most so many processes beside the agent, from now on; 0: no limit. Some memory stays out of their reach where the
// kernel can keep it. The control groups are mounted either way.
Status limit_programs(std::uint64_t processes);

}  // namespace sluicebox::agent
