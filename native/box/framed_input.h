// framed_input.h: what goes to a process's stdin in frames, within the credit that the agent gives.
// Knows: the session. Does not know: pipes.
// Threads: the reactor's.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "box/input_pump.h"
#include "box/session.h"

namespace sluicebox::box {

class FramedInput {
 public:
  FramedInput(Session& session, std::uint32_t channel, InputPump::Answer answer)
      : session_(session), channel_(channel), answer_(std::move(answer)) {}

  void write(std::uint32_t request, std::vector<std::byte> bytes);
  void end(std::uint32_t request);
  void credit(std::uint64_t bytes);
  // Nobody reads it any more: what waits is answered kStdinClosed.
  void close();

 private:
  struct Pending {
    std::uint32_t request = 0;
    std::vector<std::byte> bytes;
    bool last = false;
  };
  void push();

  Session& session_;
  const std::uint32_t channel_;
  const InputPump::Answer answer_;
  std::deque<Pending> pending_;
  std::size_t done_ = 0;  // of the first one
  std::uint64_t credit_ = 0;
  bool ended_ = false;
  bool closed_ = false;
};

}  // namespace sluicebox::box
