#include "box/spawn_error.h"

#include <cerrno>
#include <cstring>

namespace sluicebox::box {

namespace {

std::string quoted(const std::string& text) { return '"' + text + '"'; }

std::string user_text(const protocol::User& user) {
  if (user.kind == protocol::User::Kind::kName) return quoted(user.name);
  return std::to_string(user.uid);
}

Error user_error(const protocol::Spawn& spawn, int saved_errno) {
  if (saved_errno == EINVAL) {
    return Error(ErrorCode::kUnsupported,
                 "user: this host maps a single user id into boxes, so " + user_text(spawn.user) + " cannot be had")
        .advise("Run as root, or leave the user out.");
  }
  Error error(ErrorCode::kExecSpawn, saved_errno == 0
                                         ? "the box has no user " + user_text(spawn.user) + " in its /etc/passwd"
                                         : "cannot become user " + user_text(spawn.user));
  error.os_error = saved_errno;
  return error;
}

}  // namespace

Error spawn_error(const protocol::Spawn& spawn, const protocol::SpawnFailed& failed) {
  const int saved_errno = static_cast<int>(failed.os_error);
  const std::string why = std::string(": ") + strerrordesc_np(saved_errno);
  const auto error = [&](const std::string& what) {
    Error made(ErrorCode::kExecSpawn, what + why);
    made.os_error = saved_errno;
    return made;
  };
  switch (failed.step) {
    case protocol::SpawnStep::kDescriptors:
      return error("cannot make the streams of a process");
    case protocol::SpawnStep::kProcess:
      return saved_errno == EAGAIN
                 ? error("cannot make another process").advise("The box is at its maxProcesses: end some, or raise it.")
                 : error("cannot make another process");
    case protocol::SpawnStep::kUser:
      return user_error(spawn, saved_errno);
    case protocol::SpawnStep::kWorkingDirectory:
      return error("cannot enter the working directory " + quoted(spawn.cwd)).on(spawn.cwd);
    case protocol::SpawnStep::kLimits:
      return error("cannot set the limits of a process");
    case protocol::SpawnStep::kProgram:
      break;
  }
  Error made = error("cannot run " + quoted(spawn.argv.front())).on(spawn.argv.front());
  if (saved_errno == ENOENT) made.hint = "Is it in the box, in its PATH, and is its interpreter?";
  if (saved_errno == ENOEXEC) made.hint = "The kernel does not know this file's format; a script needs a #! line.";
  return made;
}

}  // namespace sluicebox::box
