#include "agent/guest.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <string_view>

#include "agent/kernel_modules.h"
#include "agent/loop.h"
#include "agent/machine_identity.h"
#include "agent/machine_root.h"
#include "agent/small_file.h"
#include "agent/step.h"
#include "base/directory.h"

namespace sluicebox::agent {

namespace {

constexpr std::string_view kPortName = "slu.agent";
// From the driver's start to a port that both ends have open: milliseconds, on a machine that is not overloaded.
constexpr std::uint64_t kPortWaitMs = 10000;

// As a namespace box has them. The kernel's own follow the machine's memory and are too low for many a program; how
// many processes there may be is the control group's to say.
struct LimitRow {
  __rlimit_resource resource;
  rlimit value;
};
constexpr LimitRow kLimits[] = {
    {RLIMIT_NOFILE, {.rlim_cur = 1024, .rlim_max = 65536}},
    {RLIMIT_NPROC, {.rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY}},
    {RLIMIT_SIGPENDING, {.rlim_cur = 16384, .rlim_max = 16384}},
};

// Ahead of all programs, which do not inherit it: the host takes an agent that is silent for long for dead, however
// many of them want the processor. It sleeps between messages.
void go_ahead_of_programs() {
  const sched_param lowest{.sched_priority = 1};
  ::sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &lowest);
}

// The path of its device, or nothing.
std::string find_port() {
  const std::string ports = "/sys/class/virtio-ports";
  const UniqueDirectory directory(::opendir(ports.c_str()));
  if (!directory) return {};
  while (const dirent* entry = ::readdir(directory.get())) {
    const std::string device = entry->d_name;
    std::string name_path = ports;
    name_path.append("/").append(device).append("/name");
    std::string name = read_small(name_path).value_or("");
    if (name.ends_with('\n')) name.pop_back();
    if (name == kPortName) return "/dev/" + device;
  }
  return {};
}

// Until the host's end is open, reads find the end of the stream.
bool host_is_there(int port) {
  pollfd waiting{.fd = port, .events = POLLIN | POLLOUT, .revents = 0};
  return ::poll(&waiting, 1, 0) >= 0 && (waiting.revents & POLLHUP) == 0;
}

}  // namespace

Status begin_guest() {
  TRY(mount_basics());
  for (const LimitRow& row : kLimits) ::setrlimit(row.resource, &row.value);
  go_ahead_of_programs();
  load_modules();
  return ok_status();
}

Result<UniqueFd> open_port() {
  const Nanoseconds deadline = deadline_after(kPortWaitMs);
  UniqueFd port;
  int failed = ENODEV;
  while (true) {
    if (!port.valid()) {
      const std::string path = find_port();
      if (!path.empty()) {
        port = UniqueFd(::open(path.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC));
        failed = port.valid() ? EPIPE : errno;
      }
    }
    if (port.valid() && host_is_there(port.get())) return port;
    if (monotonic_now() > deadline) return stopped(failed, "open the port to the host");
    ::usleep(500);
  }
}

Status make_machine(const protocol::Machine& machine) {
  TRY(take_identity(machine));
  TRY(enter_root(machine));
  write_identity(machine);
  return limit_programs(machine.processes);
}

Status become_machine(const protocol::Machine& machine) {
  TRY(take_identity(machine));
  write_identity(machine);
  return check_identity(machine);
}

}  // namespace sluicebox::agent
