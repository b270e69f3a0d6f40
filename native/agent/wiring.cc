#include "agent/wiring.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace sluicebox::agent {

namespace {

using protocol::Stdio;

struct Pipe {
  UniqueFd read;
  UniqueFd write;
};

Result<Pipe> make_pipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return os_error(errno, "cannot make a pipe");
  // Else a process of another user could not open its own /dev/stdin or /dev/stdout.
  ::fchmod(ends[0], 0666);
  return Pipe{UniqueFd(ends[0]), UniqueFd(ends[1])};
}

// Each end of a pipe has flags of its own: the process's end goes on blocking.
Status stop_blocking(int fd) {
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0 || ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) return os_error(errno, "cannot set a pipe's mode");
  return ok_status();
}

class Wirer {
 public:
  Wirer(std::vector<UniqueFd> passed, int null) : passed_(std::move(passed)), null_(null) {}

  Status input(Stdio kind) {
    if (kind != Stdio::kFramed) return plain(0, kind);
    Pipe pipe = TRY(make_pipe());
    TRY(stop_blocking(pipe.write.get()));
    give(0, std::move(pipe.read));
    wiring_.in = std::move(pipe.write);
    return ok_status();
  }

  Status output(int number, Stdio kind, UniqueFd& ours) {
    if (kind == Stdio::kStdout) {
      wiring_.child[2] = wiring_.child[1];
      return ok_status();
    }
    if (kind != Stdio::kFramed) return plain(number, kind);
    Pipe pipe = TRY(make_pipe());
    TRY(stop_blocking(pipe.read.get()));
    give(number, std::move(pipe.write));
    ours = std::move(pipe.read);
    return ok_status();
  }

  Status terminal(const protocol::Spawn& spawn, uid_t user) {
    Terminal terminal = TRY(open_terminal(spawn.cols, spawn.rows, user));
    wiring_.terminal_size = TerminalSize(terminal);
    give(0, std::move(terminal.slave));
    wiring_.child[1] = wiring_.child[2] = wiring_.child[0];
    if (spawn.in == Stdio::kPassed) {
      wiring_.master = std::move(terminal.master);
      return ok_status();
    }
    // A descriptor for each direction: each is watched for itself.
    wiring_.in = UniqueFd(::fcntl(terminal.master.get(), F_DUPFD_CLOEXEC, 0));
    if (!wiring_.in.valid()) return os_error(errno, "cannot duplicate a terminal");
    wiring_.out = std::move(terminal.master);
    return ok_status();
  }

  // Clear of the numbers that they will have in the process: the child only copies, one after the other.
  Status extra(std::uint32_t count) {
    const int above = 3 + static_cast<int>(count);
    for (std::uint32_t i = 0; i < count; ++i) {
      UniqueFd high(::fcntl(passed_[next_++].get(), F_DUPFD_CLOEXEC, above));
      if (!high.valid()) return os_error(errno, "cannot duplicate a passed descriptor");
      wiring_.extra.push_back(high.get());
      wiring_.theirs.push_back(std::move(high));
    }
    return ok_status();
  }

  Wiring take() { return std::move(wiring_); }
  Wiring& wiring() { return wiring_; }

 private:
  Status plain(int number, Stdio kind) {
    if (kind == Stdio::kPassed) {
      give(number, std::move(passed_[next_++]));
    } else if (null_ >= 0) {
      wiring_.child[static_cast<std::size_t>(number)] = null_;
    } else {
      return os_error(ENOENT, "the box has no /dev/null");
    }
    return ok_status();
  }

  void give(int number, UniqueFd end) {
    wiring_.child[static_cast<std::size_t>(number)] = end.get();
    wiring_.theirs.push_back(std::move(end));
  }

  Wiring wiring_;
  std::vector<UniqueFd> passed_;
  std::size_t next_ = 0;
  const int null_;
};

}  // namespace

std::size_t passed_count(const protocol::Spawn& spawn) {
  std::size_t count = spawn.extra;
  if (spawn.tty) return count;
  for (const Stdio kind : {spawn.in, spawn.out, spawn.err}) count += kind == Stdio::kPassed ? 1 : 0;
  return count;
}

Result<Wiring> wire(const protocol::Spawn& spawn, std::vector<UniqueFd> passed, int null, uid_t user) {
  Wirer wirer(std::move(passed), null);
  if (spawn.tty) {
    TRY(wirer.terminal(spawn, user));
    TRY(wirer.extra(spawn.extra));
    return wirer.take();
  }
  TRY(wirer.input(spawn.in));
  TRY(wirer.output(1, spawn.out, wirer.wiring().out));
  TRY(wirer.output(2, spawn.err, wirer.wiring().err));
  TRY(wirer.extra(spawn.extra));
  return wirer.take();
}

}  // namespace sluicebox::agent
