#include "box/keeper_process.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "protocol/packet_socket.h"

namespace sluicebox::box {

namespace {

constexpr std::size_t kStack = std::size_t{64} * 1024;
constexpr int kControl = 3;

// What the child needs, all of it made before: it shares our memory and runs system calls only.
struct Plan {
  const char* program = nullptr;
  char* const* argv = nullptr;
  char* const* envp = nullptr;
  int null = -1;
  int control = -1;
  const sigset_t* signals = nullptr;
  int failed = 0;  // errno, told by the child through the shared memory
};

[[noreturn]] void give_up(Plan& plan) {
  plan.failed = errno;
  ::_exit(127);
}

// In the child. No allocation, no lock, no library call that might take one. Its frame is left by an exec: a
// sanitizer's marks in it would stay where the host maps something else later.
__attribute__((no_sanitize("address"))) int become_keeper(void* argument) {
  auto& plan = *static_cast<Plan*>(argument);
  // Handlers of the host must not run here: its memory is ours.
  struct sigaction default_action{};
  default_action.sa_handler = SIG_DFL;
  for (int signal = 1; signal < 65; ++signal) ::syscall(SYS_rt_sigaction, signal, &default_action, nullptr, 8);
  if (::setsid() < 0) give_up(plan);
  for (int fd = 0; fd < 3; ++fd) {
    if (::dup2(plan.null, fd) < 0) give_up(plan);
  }
  if (::dup2(plan.control, kControl) < 0) give_up(plan);
  if (plan.control == kControl && ::fcntl(kControl, F_SETFD, 0) != 0) give_up(plan);
  // The rest of the host's descriptors end with the exec, also those that were opened without the flag.
  if (::syscall(SYS_close_range, kControl + 1, ~0U, CLOSE_RANGE_CLOEXEC) != 0) give_up(plan);
  if (::chdir("/") != 0) give_up(plan);
  ::pthread_sigmask(SIG_SETMASK, plan.signals, nullptr);
  ::execve(plan.program, plan.argv, plan.envp);
  give_up(plan);
}

// Children of this process still, whoever has their boxes.
struct Forgotten {
  Mutex mutex;
  std::vector<UniqueFd> processes GUARDED_BY(mutex);
};

void reap_forgotten(UniqueFd another) {
  static Forgotten forgotten;
  MutexLock lock(forgotten.mutex);
  if (another.valid()) forgotten.processes.push_back(std::move(another));
  std::erase_if(forgotten.processes, [](const UniqueFd& process) {
    siginfo_t end{};
    const int reaped =
        ::waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(process.get()), &end, WEXITED | WNOHANG | __WALL);
    return reaped != 0 || end.si_pid != 0;
  });
}

}  // namespace

void forget_keeper(UniqueFd process) { reap_forgotten(std::move(process)); }

Result<KeeperProcess> start_keeper(const std::string& program, const std::string& name) {
  reap_forgotten({});
  auto [ours, theirs] = TRY(protocol::packet_pair());
  const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!null.valid()) return os_error(errno, "cannot open /dev/null");
  // Not the caller's: the child would run in frames that the caller goes on using.
  void* stack = ::mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
  if (stack == MAP_FAILED) return os_error(errno, "cannot make a stack");

  std::string title = "sluicebox-keeper";
  std::string argument = name;
  std::array<char*, 3> argv = {title.data(), argument.data(), nullptr};
  std::array<char*, 1> envp = {nullptr};
  sigset_t none;
  ::sigemptyset(&none);
  Plan plan{.program = program.c_str(),
            .argv = argv.data(),
            .envp = envp.data(),
            .null = null.get(),
            .control = theirs.get(),
            .signals = &none};
  // No signal handler of the host may run in the child while it shares our memory.
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  int process = -1;
  // Without a signal at its end: the host's own handling of its children must not see ours.
  const int pid =
      ::clone(become_keeper, static_cast<char*>(stack) + kStack, CLONE_VM | CLONE_VFORK | CLONE_PIDFD, &plan, &process);
  const int failed = pid < 0 ? errno : plan.failed;
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  ::munmap(stack, kStack);
  UniqueFd pidfd(process);
  if (pid >= 0 && failed != 0)
    ::waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(process), nullptr, WEXITED | __WALL);
  if (failed != 0) {
    Error error = os_error(failed, "cannot start the keeper", program);
    error.code = ErrorCode::kBoxStart;
    return error;
  }
  return KeeperProcess{.process = std::move(pidfd), .control = std::move(ours)};
}

}  // namespace sluicebox::box
