// launcher.h: what every spawn of this agent needs beside the request: users, /dev/null, the limits of a process.
// Knows: the host's id map, the agent's own rights. Does not know: sessions.
// Threads: one.
#pragma once

#include <sys/resource.h>

#include <vector>

#include "agent/spawn.h"
#include "agent/users.h"
#include "agent/wiring.h"
#include "base/unique_fd.h"
#include "protocol/messages.h"

namespace sluicebox::agent {

struct LaunchResult {
  Spawned process;
  Wiring wiring;  // without the process's ends
};

class Launcher {
 public:
  // Before any program of the box has run: /dev/null is what it should be. Raises the agent's own limit of files.
  Launcher();
  // Once the box's own /dev is there, in a machine: by then the first one's name is that of a file system gone.
  void renew_null();

  LaunchResult launch(protocol::Spawn&& request, std::vector<UniqueFd> passed);

 private:
  int identify(const protocol::User& user, std::optional<Identity>& identity);

  UniqueFd null_;
  rlimit files_{};
  const bool one_id_only_;
  Users users_;
};

}  // namespace sluicebox::agent
