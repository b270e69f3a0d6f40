// input_pump.h: what goes to a process's stdin, into its pipe (or terminal) as fast as it reads.
// Knows: reactor. Does not know: processes, frames.
// Threads: the reactor's.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <vector>

#include "base/unique_fd.h"
#include "box/reactor.h"

namespace sluicebox::box {

// What a write is answered when nobody reads stdin any more.
Error stdin_closed();

class InputPump final : public Watcher {
 public:
  // Of a write or an end, by its request number: the bytes are in the pipe, or kStdinClosed.
  using Answer = std::function<void(std::uint32_t request, Status status)>;

  // `pipe` does not block. Of a terminal the end of input is its EOF character, and the descriptor stays open.
  InputPump(Reactor& reactor, UniqueFd pipe, bool terminal, Answer answer);
  ~InputPump() override;

  void write(std::uint32_t request, std::vector<std::byte> bytes);
  void end(std::uint32_t request);
  // The process has ended or is let go: what waits is answered kStdinClosed.
  void close();
  bool open() const { return pipe_.valid(); }

  void ready(std::uint32_t events) override;

 private:
  struct Pending {
    std::uint32_t request = 0;
    std::vector<std::byte> bytes;
    bool last = false;
  };
  void push();
  bool push_front();

  Reactor& reactor_;
  UniqueFd pipe_;
  const bool terminal_;
  const Answer answer_;
  std::deque<Pending> pending_;
  std::size_t done_ = 0;  // of the first one
  bool ended_ = false;
  bool watching_ = false;
};

}  // namespace sluicebox::box
