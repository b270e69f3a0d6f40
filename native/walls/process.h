// process.h: a process in namespaces of its own, known by a descriptor.
// Knows: clone3, pidfds. Threads: a process with one thread: the child goes on with a copy of everything.
#pragma once

#include <sys/types.h>

#include <optional>

#include "base/result.h"
#include "base/unique_fd.h"

namespace sluicebox::walls {

struct Process {
  pid_t pid = 0;  // 0: this is the child
  UniqueFd handle;
};

// User, mount, pid, net, ipc and uts namespaces. The cgroup namespace comes when the cgroups are joined.
Result<Process> clone_into_namespaces();

Status unshare_cgroup_namespace();

// SIGKILL, to that very process.
void kill_process(int handle);

struct ProcessEnd {
  bool signaled = false;
  int code = 0;
};
// Waits for the end.
ProcessEnd reap(int handle);

}  // namespace sluicebox::walls
