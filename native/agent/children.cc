#include "agent/children.h"

#include <sys/wait.h>

#include <cerrno>

namespace sluicebox::agent {

void Children::reap() {
  while (true) {
    int status = 0;
    rusage usage{};
    const pid_t pid = ::wait4(-1, &status, WNOHANG | __WALL, &usage);
    if (pid < 0 && errno == EINTR) continue;
    if (pid <= 0) return;
    const auto found = parents_.find(pid);
    if (found == parents_.end()) continue;
    Parent& parent = *found->second;
    parents_.erase(found);
    parent.ended(status, usage);
  }
}

bool Children::any_left() {
  siginfo_t info{};
  return ::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT | __WALL) == 0 || errno != ECHILD;
}

}  // namespace sluicebox::agent
