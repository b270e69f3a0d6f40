// output_stream.h: a framed stdout or stderr: from a pipe or terminal into frames, no faster than the host allows.
// Knows: its descriptor, credit. Does not know: the process.
// Threads: one.
//
// Bytes of the process itself ("own") are told apart from what others write after its end: those are read and thrown
// away, so that the pipe's end never breaks under them.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "agent/loop.h"
#include "agent/outbox.h"
#include "base/unique_fd.h"
#include "protocol/messages.h"

namespace sluicebox::agent {

class OutputStream {
 public:
  // `source` does not block. Starts to read at once.
  OutputStream(Loop& loop, Outbox& outbox, std::uint32_t channel, protocol::Stream stream, UniqueFd source,
               bool terminal, std::uint32_t credit);

  void grant(std::uint32_t bytes);
  void discard();
  // The outbox is empty again.
  void resume();

  // The process has ended: how many bytes are its own, those sent included.
  std::uint64_t measure();
  // After measure(), when the host has been told: says the end when all own bytes are out.
  void settle();

  // Nobody can write any more, and everything was said.
  bool closed() const { return !source_.valid(); }

 private:
  void start();
  void pump();
  void send_pending();
  bool take();
  bool throw_away();
  void read_ahead();
  void send(MutableBytes framed);
  void say_end();
  void finish();

  Loop& loop_;
  Outbox& outbox_;
  const std::uint32_t channel_;
  const protocol::Stream stream_;
  const bool terminal_;
  UniqueFd source_;
  Watch watch_;
  std::uint64_t credit_;
  std::uint64_t sent_ = 0;
  std::optional<std::uint64_t> own_;
  std::vector<std::byte> pending_;  // read, but the host allows no more yet
  bool discarding_ = false;
  bool end_said_ = false;
};

}  // namespace sluicebox::agent
