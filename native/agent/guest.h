// guest.h: the agent as the first program of a virtual machine's kernel: it makes the machine what its host says.
// Knows: modules, ports, root, identity, and their order. Does not know: sessions.
// Threads: one.
#pragma once

#include "base/result.h"
#include "base/unique_fd.h"
#include "protocol/messages.h"

namespace sluicebox::agent {

// /dev, /proc and /sys, modules. Nothing of the machine is known yet.
Status begin_guest();

// The serial port that leads to the host, once the host is there; it does not block.
Result<UniqueFd> open_port();

// At first: identity, root, limits. An error's message is the step that failed; the agent can still speak.
Status make_machine(const protocol::Machine& machine);
// A machine that stands already becomes another one: a copy of it, or itself as it was.
Status become_machine(const protocol::Machine& machine);

}  // namespace sluicebox::agent
