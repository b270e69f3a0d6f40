#include "agent/settle.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>

namespace sluicebox::agent {

bool settle_descriptors(int link) {
  if (link >= 0 && ::fcntl(link, F_SETFD, FD_CLOEXEC) != 0) return false;
  ::close_range(static_cast<unsigned>(link + 1), ~0U, 0);
  for (int number = 0; number < 3; ++number) {
    if (::fcntl(number, F_GETFD) >= 0) continue;
    int filler = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    if (filler < 0) filler = ::eventfd(0, EFD_CLOEXEC);
    if (filler != number) return false;
  }
  return true;
}

// The system call itself for the dispositions, since the C library keeps two signals back.
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

}  // namespace sluicebox::agent
