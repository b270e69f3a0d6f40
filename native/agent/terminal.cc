#include "agent/terminal.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>

namespace sluicebox::agent {

namespace {

std::string own_path(int fd) { return "/proc/self/fd/" + std::to_string(fd); }

int set_size(int terminal, std::uint32_t cols, std::uint32_t rows) {
  const winsize size{.ws_row = static_cast<unsigned short>(rows),
                     .ws_col = static_cast<unsigned short>(cols),
                     .ws_xpixel = 0,
                     .ws_ypixel = 0};
  return ::ioctl(terminal, TIOCSWINSZ, &size) == 0 ? 0 : errno;
}

}  // namespace

Result<Terminal> open_terminal(std::uint32_t cols, std::uint32_t rows, uid_t owner) {
  Terminal terminal;
  terminal.master = UniqueFd(::open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK));
  if (!terminal.master.valid()) return os_error(errno, "cannot open a terminal");
  const int unlock = 0;
  if (::ioctl(terminal.master.get(), TIOCSPTLCK, &unlock) != 0) return os_error(errno, "cannot unlock a terminal");
  // By the master, not by a path that a program of the box could have put something else at.
  terminal.slave = UniqueFd(::ioctl(terminal.master.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!terminal.slave.valid()) return os_error(errno, "cannot open a terminal's other side");
  if (const int failed = set_size(terminal.slave.get(), cols, rows); failed != 0)
    return os_error(failed, "cannot set a terminal's size");
  // So that the user can open it by name. Where only one id is mapped it is that id's already.
  if (owner != ::geteuid() && ::fchown(terminal.slave.get(), owner, static_cast<gid_t>(-1)) != 0)
    return os_error(errno, "cannot give a terminal to its user");
  return terminal;
}

TerminalSize::TerminalSize(const Terminal& terminal)
    : place_(::open(own_path(terminal.slave.get()).c_str(), O_PATH | O_CLOEXEC)) {}

int TerminalSize::set(std::uint32_t cols, std::uint32_t rows) const {
  if (!place_.valid()) return ENOTTY;
  const UniqueFd slave(::open(own_path(place_.get()).c_str(), O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK));
  return slave.valid() ? set_size(slave.get(), cols, rows) : errno;
}

}  // namespace sluicebox::agent
