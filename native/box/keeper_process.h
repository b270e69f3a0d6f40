// keeper_process.h: starts a keeper, the one process that this library starts itself.
// Knows: clone, exec. Does not know: what a keeper does.
// Threads: any. The calling thread stands still until the new process has executed its program (about a millisecond);
// a plain fork of a big Node.js process would take thirty.
#pragma once

#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace sluicebox::box {

struct KeeperProcess {
  UniqueFd process;  // pidfd
  UniqueFd control;  // our end of its control socket
};

// `program` gets `name` as its only argument, an empty environment, / as its directory, and the control socket as
// descriptor 3; of 0 to 2 it gets /dev/null.
Result<KeeperProcess> start_keeper(const std::string& program, const std::string& name);

// Its box runs on without us. It is reaped when it has ended and another keeper is started or forgotten.
void forget_keeper(UniqueFd process);

}  // namespace sluicebox::box
