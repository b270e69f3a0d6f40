// terminal.h: a pseudo-terminal: its two sides, its size.
// Knows: /dev/ptmx of the box. Does not know: who reads it.
// Threads: one.
#pragma once

#include <sys/types.h>

#include <cstdint>

#include "base/result.h"
#include "base/unique_fd.h"

namespace sluicebox::agent {

struct Terminal {
  UniqueFd master;  // does not block
  UniqueFd slave;
};

// A new one, of that size, for a process of that user. An error carries os_error.
Result<Terminal> open_terminal(std::uint32_t cols, std::uint32_t rows, uid_t owner);

// Sets a terminal's size without holding it open: while the agent had a master open, a host that closes its own would
// hang nothing up.
class TerminalSize {
 public:
  TerminalSize() = default;
  explicit TerminalSize(const Terminal& terminal);
  // 0, or errno; programs on it get SIGWINCH if the size is another.
  int set(std::uint32_t cols, std::uint32_t rows) const;

 private:
  UniqueFd place_;  // a path-only descriptor of the slave
};

}  // namespace sluicebox::agent
