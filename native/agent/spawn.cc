#include "agent/spawn.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstddef>

namespace sluicebox::agent {

namespace {

using protocol::SpawnStep;

struct ChildTask {
  const Plan* plan;
  const char* const* candidates;
  char* const* argv;
  char* const* env;
  // Written by the child, read by the parent when it goes on.
  volatile SpawnStep step;
  volatile int os_error;
};

// One child at a time, and only until its exec.
alignas(64) std::byte child_stack[64 * 1024];

// The kernel's signal set; the C library's has its own size.
constexpr std::size_t kSignalSetSize = 8;

std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> result;
  result.reserve(texts.size() + 1);
  for (const std::string& text : texts) result.push_back(const_cast<char*>(text.c_str()));  // exec reads only
  result.push_back(nullptr);
  return result;
}

// ---------- in the child ----------

bool set_descriptors(const Plan& plan) {
  for (int number = 0; number < 3; ++number) {
    if (::dup2(plan.stdio[static_cast<std::size_t>(number)], number) < 0) return false;
  }
  if (plan.terminal && ::ioctl(0, TIOCSCTTY, 0) != 0) return false;
  int next = 3;
  for (const int descriptor : plan.extra) {
    if (::dup2(descriptor, next++) < 0) return false;
  }
  // Whatever the agent forgot to mark.
  return ::close_range(static_cast<unsigned>(next), ~0U, CLOSE_RANGE_CLOEXEC) == 0;
}

// System calls without the C library's: that would carry the change to all "threads" of a process, by signals.
bool set_identity(const Identity& identity) {
  if (::syscall(SYS_setgroups, identity.groups.size(), identity.groups.data()) != 0) return false;
  if (::syscall(SYS_setresgid, identity.gid, identity.gid, identity.gid) != 0) return false;
  if (::syscall(SYS_setresuid, identity.uid, identity.uid, identity.uid) != 0) return false;
  if (identity.uid == 0) return true;
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  const __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {};
  // Ambient ones go with the inheritable.
  return ::syscall(SYS_capset, &header, none) == 0;
}

// execvp's rules, but for a file that is no program: no shell is put in its place.
int execute(const ChildTask& task) {
  int failed = ENOENT;
  for (const char* const* path = task.candidates; *path != nullptr; ++path) {
    ::execve(*path, task.argv, task.env);
    switch (errno) {
      case EACCES:
        failed = EACCES;
        break;
      case ENOENT:
      case ENOTDIR:
      case ESTALE:
      case ENODEV:
      case ETIMEDOUT:
        if (task.candidates[1] == nullptr) return errno;
        break;
      default:
        return errno;
    }
  }
  return failed;
}

int fail(ChildTask& task, SpawnStep step, int os_error) {
  task.os_error = os_error;
  task.step = step;
  return 127;  // seen by nobody
}

int child(void* argument) {
  auto& task = *static_cast<ChildTask*>(argument);
  const Plan& plan = *task.plan;
  if (::setsid() < 0) return fail(task, SpawnStep::kProcess, errno);
  if (!set_descriptors(plan)) return fail(task, SpawnStep::kDescriptors, errno);
  if (::syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, &plan.files, nullptr) != 0)
    return fail(task, SpawnStep::kLimits, errno);
  ::umask(022);
  if (plan.identity && !set_identity(*plan.identity)) return fail(task, SpawnStep::kUser, errno);
  if (::chdir(plan.cwd.c_str()) != 0) return fail(task, SpawnStep::kWorkingDirectory, errno);
  const std::uint64_t none = 0;
  ::syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, nullptr, kSignalSetSize);
  return fail(task, SpawnStep::kProgram, execute(task));
}

}  // namespace

Spawned spawn(const Plan& plan) {
  const std::vector<char*> paths = pointers(plan.candidates);
  const std::vector<char*> argv = pointers(plan.argv);
  const std::vector<char*> env = pointers(plan.env);
  ChildTask task{.plan = &plan,
                 .candidates = paths.data(),
                 .argv = argv.data(),
                 .env = env.data(),
                 .step = SpawnStep{},
                 .os_error = 0};
  // All signals are blocked in the agent, for good, and their dispositions are the default ones: neither can a handler
  // run in the child, nor need the child undo any. clone() because clone3() is refused in a box.
  const pid_t pid = ::clone(child, child_stack + sizeof child_stack, CLONE_VM | CLONE_VFORK | SIGCHLD, &task);
  if (pid < 0) return {.step = SpawnStep::kProcess, .os_error = errno};
  // A change of user in the shared memory may have made it dumpable again, as the host is configured.
  if (plan.identity && plan.identity->uid != 0) ::prctl(PR_SET_DUMPABLE, 0);
  if (task.os_error != 0) return {.step = task.step, .os_error = task.os_error};
  return {.pid = pid};
}

}  // namespace sluicebox::agent
