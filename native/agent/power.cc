#include "agent/power.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "agent/loop.h"
#include "base/unique_fd.h"

namespace sluicebox::agent {

namespace {

// A process that SIGKILL does not end is stuck in the kernel: its files are written out as far as they can be.
constexpr std::uint64_t kKilledWaitMs = 1000;

void end_processes() {
  const Nanoseconds deadline = deadline_after(kKilledWaitMs);
  ::kill(-1, SIGKILL);
  while (monotonic_now() < deadline) {
    const pid_t reaped = ::waitpid(-1, nullptr, WNOHANG | __WALL);
    if (reaped < 0 && errno == ECHILD) return;
    if (reaped == 0) ::usleep(500);
  }
}

// So that the next mount finds nothing to repair. While somebody still writes to it, a freeze does as much: it empties
// the journal and holds what would come after.
void close_root() {
  if (::mount(nullptr, "/", nullptr, MS_REMOUNT | MS_RDONLY, nullptr) == 0) return;
  const UniqueFd root(::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (root.valid()) ::ioctl(root.get(), FIFREEZE, 0);
}

}  // namespace

void power_off() {
  end_processes();
  ::sync();
  close_root();
  ::reboot(RB_POWER_OFF);
  // No way to switch it off: a restart is the end too, as its host starts it.
  ::reboot(RB_AUTOBOOT);
  while (true) ::pause();  // the end of the first process would be a panic of the kernel
}

}  // namespace sluicebox::agent
