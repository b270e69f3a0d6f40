#include "agent/launcher.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <string_view>
#include <utility>

#include "agent/lookup.h"

namespace sluicebox::agent {

namespace {

// The box maps one id onto its owner's: no other exists in it. "0 1000 1"
bool maps_one_id() {
  const UniqueFd map(::open("/proc/self/uid_map", O_RDONLY | O_CLOEXEC));
  char text[256];
  const ssize_t got = map.valid() ? ::read(map.get(), text, sizeof text) : 0;
  if (got <= 0) return false;
  std::string_view line(text, static_cast<std::size_t>(got));
  if (line.find('\n') != line.size() - 1) return false;
  line.remove_suffix(1);
  return line.substr(line.find_last_of(' ') + 1) == "1";
}

Spawned refused(protocol::SpawnStep step, int os_error) { return {.step = step, .os_error = os_error}; }

UniqueFd open_null() { return UniqueFd(::open("/dev/null", O_RDWR | O_CLOEXEC)); }

}  // namespace

Launcher::Launcher() : null_(open_null()), one_id_only_(maps_one_id()) {
  ::getrlimit(RLIMIT_NOFILE, &files_);
  const rlimit all{files_.rlim_max, files_.rlim_max};
  ::setrlimit(RLIMIT_NOFILE, &all);
}

void Launcher::renew_null() { null_ = open_null(); }

LaunchResult Launcher::launch(protocol::Spawn&& request, std::vector<UniqueFd> passed) {
  LaunchResult result;
  Plan plan;
  if (const int failed = identify(request.user, plan.identity); failed >= 0) {
    result.process = refused(protocol::SpawnStep::kUser, failed);
    return result;
  }
  auto wiring = wire(request, std::move(passed), null_.get(), plan.identity ? plan.identity->uid : ::geteuid());
  if (!wiring.ok()) {
    result.process = refused(protocol::SpawnStep::kDescriptors, wiring.error().os_error);
    return result;
  }
  result.wiring = std::move(*wiring);
  plan.candidates = candidates(request.argv[0], request.env);
  plan.argv = std::move(request.argv);
  plan.env = std::move(request.env);
  plan.cwd = std::move(request.cwd);
  plan.stdio = result.wiring.child;
  plan.extra = result.wiring.extra;
  plan.terminal = request.tty;
  plan.files = files_;
  result.process = spawn(plan);
  result.wiring.theirs.clear();
  return result;
}

// -1, or the error of the step: 0 for an unknown user.
int Launcher::identify(const protocol::User& user, std::optional<Identity>& identity) {
  identity = users_.find(user);
  if (!identity) return 0;
  // The system calls take this one for "leave it as it is".
  constexpr auto kNone = static_cast<std::uint32_t>(-1);
  if (identity->uid == kNone || identity->gid == kNone) return EINVAL;
  if (one_id_only_) {
    if (identity->uid != 0 || identity->gid != 0) return EINVAL;
    identity.reset();
    return -1;
  }
  // Without the right to become anybody, it can at least stay who it is.
  if (::geteuid() != 0 && identity->uid == ::geteuid() && identity->gid == ::getegid()) identity.reset();
  return -1;
}

}  // namespace sluicebox::agent
