// spawn.h: a process from a plan: clone, the steps up to exec, and which of them failed.
// Knows: system calls. Does not know: sessions, streams.
// Threads: one.
//
// The child shares the agent's memory and the agent stands still until it has called exec or ended. So the result is
// known when spawn() returns, and the child must do with what is prepared: no allocation, no lock, nothing that the C
// library does beyond the bare system call.
#pragma once

#include <sys/resource.h>

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "agent/users.h"
#include "protocol/messages.h"

namespace sluicebox::agent {

struct Plan {
  std::vector<std::string> candidates;  // paths of the program, in the order to be tried
  std::vector<std::string> argv;
  std::vector<std::string> env;
  std::string cwd;
  std::optional<Identity> identity;  // nothing: as the agent
  std::array<int, 3> stdio{};        // all above 2
  std::vector<int> extra;            // to be 3, 4 and on: none of them is among those numbers now
  bool terminal = false;             // stdio[0] is to be the controlling terminal
  rlimit files{};                    // RLIMIT_NOFILE
};

struct Spawned {
  pid_t pid = -1;
  // When it failed; a child that came that far ends by itself and is reaped like an orphan.
  protocol::SpawnStep step{};
  int os_error = 0;
};

Spawned spawn(const Plan& plan);

}  // namespace sluicebox::agent
