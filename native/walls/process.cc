#include "walls/process.h"

#include <linux/sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#include "walls/failure.h"

extern "C" int unshare(int flags) noexcept;

namespace sluicebox::walls {

// clone3 and the calls on pidfds have no wrappers in the C library.

Result<Process> clone_into_namespaces() {
  int handle = -1;
  clone_args args{};
  args.flags = CLONE_PIDFD | CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS;
  args.pidfd = reinterpret_cast<std::uintptr_t>(&handle);  // the kernel takes the pointer as a number
  args.exit_signal = SIGCHLD;
  const long pid = ::syscall(SYS_clone3, &args, sizeof args);
  if (pid < 0) {
    Error error = failure(errno, "make the box's namespaces");
    if (errno == EPERM || errno == ENOSPC || errno == EUSERS)
      error.hint = "this host may forbid user namespaces (sysctl user.max_user_namespaces, AppArmor, a container)";
    return error;
  }
  Process process;
  process.pid = static_cast<pid_t>(pid);
  if (pid != 0) process.handle = UniqueFd(handle);
  return process;
}

Status unshare_cgroup_namespace() {
  if (::unshare(CLONE_NEWCGROUP) != 0) return failure(errno, "make the box's cgroup namespace");
  return ok_status();
}

void kill_process(int handle) { ::syscall(SYS_pidfd_send_signal, handle, SIGKILL, nullptr, 0); }

ProcessEnd reap(int handle) {
  siginfo_t info{};
  while (::waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(handle), &info, WEXITED) != 0 && errno == EINTR) {
  }
  return {info.si_code != CLD_EXITED, info.si_status};
}

}  // namespace sluicebox::walls
