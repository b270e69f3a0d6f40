// main.cc: makes the process fit to be the first of a box, whatever it inherited, and runs the agent.
#include <fcntl.h>
#include <linux/close_range.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <exception>

#include "agent/agent.h"

namespace sluicebox::agent {
namespace {

constexpr int kLink = 3;

// 0, 1 and 2 are what a spawn puts a process's own descriptors at: nothing of the agent may lie there.
bool settle_descriptors() {
  if (::fcntl(kLink, F_SETFD, FD_CLOEXEC) != 0) return false;
  ::close_range(kLink + 1, ~0U, 0);
  for (int number = 0; number < kLink; ++number) {
    if (::fcntl(number, F_GETFD) >= 0) continue;
    int filler = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    if (filler < 0) filler = ::eventfd(0, EFD_CLOEXEC);
    if (filler != number) return false;
  }
  return true;
}

// Blocked for good, default dispositions: what a spawned process inherits is then what it should have. The system call
// itself, since the C library keeps two signals back.
UniqueFd settle_signals() {
  struct {
    std::uint64_t handler, flags, restorer, mask;
  } const fallback{};
  for (int number = 1; number <= 64; ++number)
    ::syscall(SYS_rt_sigaction, number, &fallback, nullptr, sizeof(std::uint64_t));
  const std::uint64_t all = ~std::uint64_t{0};
  ::syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, nullptr, sizeof all);
  sigset_t child;
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  return UniqueFd(::signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK));
}

int run() {
  if (!settle_descriptors()) return 1;
  // Its memory and descriptors are no business of the box's programs, nor of those with its own uid.
  ::prctl(PR_SET_DUMPABLE, 0);
  if (::getpid() != 1) ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  UniqueFd child_signals = settle_signals();
  auto loop = Loop::create();
  if (!child_signals.valid() || !loop.ok()) return 1;
  if (::fcntl(kLink, F_SETFL, ::fcntl(kLink, F_GETFL) | O_NONBLOCK) != 0) return 1;
  Agent agent(std::move(*loop), UniqueFd(kLink), std::move(child_signals));
  agent.run();
}

}  // namespace
}  // namespace sluicebox::agent

int main() {
  try {
    return sluicebox::agent::run();
  } catch (...) {
    return 1;  // no memory is left; the end of this process ends the box
  }
}
