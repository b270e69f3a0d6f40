#include "walls/host_state.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>

#include <cerrno>
#include <string>

#include "walls/failure.h"
#include "walls/host_etc.h"
#include "walls/host_view.h"

namespace sluicebox::walls {

Result<HostState> HostState::now() {
  HostState state;
  // The kernel tells of changes from here on to whoever has the table open.
  state.mounts_ = UniqueFd(::open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC));
  if (!state.mounts_.valid()) return failure(errno, "read the table of mounts", "/proc/self/mountinfo");
  state.facts_ = look();
  return state;
}

bool HostState::holds() const {
  pollfd mounts{mounts_.get(), POLLPRI, 0};
  return ::poll(&mounts, 1, 0) == 0 && look() == facts_;
}

std::vector<HostState::Fact> HostState::look() {
  std::vector<Fact> facts;
  const auto add = [&](const std::string& path) {
    struct stat found{};
    const bool there = ::lstat(path.c_str(), &found) == 0;
    facts.push_back(there ? Fact{true, found.st_ino, found.st_ctim} : Fact{});
  };
  for (const char* name : kHostPrograms) add(std::string("/").append(name));
  for (const char* name : kEtcFiles) add(std::string("/etc/").append(name));
  for (const char* name : kEtcDirectories) add(std::string("/etc/").append(name));
  return facts;
}

}  // namespace sluicebox::walls
