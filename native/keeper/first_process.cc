#include "keeper/first_process.h"

#include <fcntl.h>
#include <linux/keyctl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <vector>

#include "keeper/answer.h"
#include "keeper/setup.h"
#include "walls/caps.h"
#include "walls/devices.h"
#include "walls/failure.h"
#include "walls/landlock.h"
#include "walls/limits.h"
#include "walls/masks.h"
#include "walls/mount.h"
#include "walls/net.h"
#include "walls/process.h"
#include "walls/seccomp.h"
#include "walls/user.h"

namespace sluicebox::keeper {

namespace {

using protocol::Type;
using walls::failure;

constexpr int kLink = 3;  // where the agent expects it

// The keeper's own descriptors, its lock among them, are none of PID 1's business.
void keep_only(std::vector<int> kept) {
  std::sort(kept.begin(), kept.end());
  unsigned from = 3;
  for (const int fd : kept) {
    if (fd < static_cast<int>(from)) continue;
    if (static_cast<unsigned>(fd) > from) ::close_range(from, static_cast<unsigned>(fd) - 1, 0);
    from = static_cast<unsigned>(fd) + 1;
  }
  ::close_range(from, UINT_MAX, 0);
}

// The keeper's next word: `expected`, or it is gone and there is nobody left to tell.
SetupWord wait_for(int setup, Type expected) {
  auto word = hear(setup);
  if (!word.ok() || word.value().type != expected) ::_exit(1);
  return std::move(word).value();
}

void take_trees(FirstProcess& process, std::vector<UniqueFd> trees) {
  for (UniqueFd& tree : trees) {
    const bool lower = !process.root.host && !process.root.lower_tree.valid();
    (lower ? process.root.lower_tree : process.root.layer_tree) = std::move(tree);
  }
}

// The keeper ends this process once it has heard. An end by itself, with words of the keeper unread, would drop what
// was said on the way.
[[noreturn]] void report(int setup, const Error& error) {
  (void)say(setup, Type::kLaunchFailed, protocol::encode(as_answer(error)));
  while (hear(setup).ok()) {
  }
  ::_exit(1);
}

Status default_signals() {
  sigset_t none;
  ::sigemptyset(&none);
  // Of the standard ones; the agent sees to the rest before it starts a program.
  for (int signal = 1; signal < 32; ++signal) ::signal(signal, SIG_DFL);
  if (::sigprocmask(SIG_SETMASK, &none, nullptr) != 0) return failure(errno, "clear the mask of signals");
  return ok_status();
}

Status name_machine(const std::string& hostname) {
  if (::sethostname(hostname.data(), hostname.size()) != 0) return failure(errno, "set the box's hostname");
  return ok_status();
}

Status null_stdio() {
  const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!null.valid()) return failure(errno, "open the box's /dev/null");
  for (const int fd : {0, 1, 2})
    if (::dup2(null.get(), fd) < 0) return failure(errno, "set the agent's stdio");
  return ok_status();
}

Status see_only_the_box(const FirstProcess& process) {
  TRY(walls::raise_loopback());
  const walls::NewRoot made = TRY(walls::build_root(process.root));
  TRY(walls::make_devices(made.root.get(), made.shm.get()));
  TRY(walls::make_proc(made.root.get()));
  TRY(walls::enter_root(made.root.get()));
  return null_stdio();
}

// Last of all: after landlock nothing can be mounted, after the filter little else can be done.
Status give_up_power(std::uint64_t processes) {
  TRY(walls::unshare_cgroup_namespace());
  TRY(walls::set_limits(processes));
  // An empty session keyring in place of the user's. keyctl has no wrapper in the C library.
  if (::syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, nullptr) < 0 && errno != ENOSYS)
    return failure(errno, "join a session keyring of the box's own");
  TRY(walls::keep_few_capabilities());
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return failure(errno, "give up gaining privileges");
  TRY(walls::restrict_by_landlock());
  return walls::install_seccomp_filter();
}

Status execute_agent(const FirstProcess& process) {
  // A copy of its own number first: the link's may be anything, 3 among it.
  const UniqueFd link(::fcntl(process.link, F_DUPFD_CLOEXEC, 10));
  const UniqueFd agent(::fcntl(process.agent, F_DUPFD_CLOEXEC, 10));
  const UniqueFd setup(::fcntl(process.setup, F_DUPFD_CLOEXEC, 10));
  if (!link.valid() || !agent.valid() || !setup.valid()) return failure(errno, "order the agent's descriptors");
  if (::dup2(link.get(), kLink) < 0) return failure(errno, "order the agent's descriptors");
  keep_only({kLink, link.get(), agent.get(), setup.get()});  // those but kLink close on exec
  (void)say(setup.get(), Type::kLaunched);
  char name[] = "sluicebox-agent";
  char* const argv[] = {name, nullptr};
  char* const environment[] = {nullptr};
  ::syscall(SYS_execveat, agent.get(), "", argv, environment, AT_EMPTY_PATH);
  report(setup.get(), failure(errno, "execute the agent"));
}

Status build(FirstProcess& process) {
  take_trees(process, std::move(wait_for(process.setup, Type::kHello).descriptors));
  TRY(walls::become_root(process.range));
  // Second to the link's hang-up, for as long as nobody listens to that. Cleared by a change of user: so after it. If
  // the keeper is gone by now, the next wait_for() ends this.
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) return failure(errno, "tie PID 1 to the keeper");
  ::setsid();
  ::umask(022);
  TRY(default_signals());
  TRY(see_only_the_box(process));
  const Rest rest = TRY(decode_rest(wait_for(process.setup, Type::kPing).payload));
  TRY(name_machine(rest.root.hostname));
  TRY(walls::finish_root(process.root, rest.root));
  TRY(give_up_power(rest.processes));
  return execute_agent(process);
}

}  // namespace

void become_first_process(FirstProcess process) {
  keep_only({process.setup, process.link, process.agent, process.root.lower_place, process.root.box_place});
  const Status done = build(process);
  report(process.setup, done.error());
}

}  // namespace sluicebox::keeper
