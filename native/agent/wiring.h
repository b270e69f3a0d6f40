// wiring.h: a process's stdin, stdout and stderr: the ends that it gets, and those that the agent or the host keeps.
// Knows: pipes, terminals, what a spawn asks for. Does not know: processes.
// Threads: one.
#pragma once

#include <array>
#include <vector>

#include "agent/terminal.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "protocol/messages.h"

namespace sluicebox::agent {

struct Wiring {
  std::array<int, 3> child{-1, -1, -1};  // borrowed from `theirs`, or /dev/null
  std::vector<int> extra;                // borrowed too
  std::vector<UniqueFd> theirs;          // closed when the process has them

  // The agent's ends of framed streams, which do not block.
  UniqueFd in;
  UniqueFd out;
  UniqueFd err;

  UniqueFd master;  // of a terminal that the host is to have
  TerminalSize terminal_size;
};

// How many descriptors must travel with it.
std::size_t passed_count(const protocol::Spawn& spawn);

// `passed`: as many as passed_count(). `null`: /dev/null. An error carries os_error.
Result<Wiring> wire(const protocol::Spawn& spawn, std::vector<UniqueFd> passed, int null, uid_t user);

}  // namespace sluicebox::agent
