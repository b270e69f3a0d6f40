// machine_identity.h: what makes a virtual machine another than its like: clock, random numbers, name.
// Knows: system calls. Does not know: file systems but the names in /etc, sessions.
// Threads: one.
#pragma once

#include "base/result.h"
#include "protocol/messages.h"

namespace sluicebox::agent {

// Random numbers first: whatever the kernel draws from then on is this machine's own.
Status take_identity(const protocol::Machine& machine);

// Into /etc, where that can be written: programs read them there. The root is the machine's own by now.
void write_identity(const protocol::Machine& machine);
// Whether programs would read another machine's id there.
Status check_identity(const protocol::Machine& machine);

}  // namespace sluicebox::agent
