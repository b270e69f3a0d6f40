// output_pump.h: one output stream of a process, from its pipe (or terminal) into its sink.
// Knows: reactor, sink. Does not know: processes, frames.
// Threads: the reactor's.
//
// Invariants:
// 1. It reads only what the sink has room for: a full sink leaves the rest in the pipe, and the program waits.
// 2. Up to the process's end every byte goes to the sink; once end_at_own_bytes() was called, only those that the pipe
//    held then: they are the process's own. What others write later is read and thrown away, so that no broken pipe
//    kills them.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "base/unique_fd.h"
#include "box/reactor.h"
#include "box/stream_sink.h"

namespace sluicebox::box {

class OutputPump final : public Watcher {
 public:
  // `pipe` does not block. `full` is called when the sink has no room, so that the program has to wait.
  OutputPump(Reactor& reactor, UniqueFd pipe, bool terminal, StreamSink& sink, std::function<void()> full);
  ~OutputPump() override;

  Status start();
  // The sink has room again.
  void resume();
  // The process has ended. The bytes from the stream's start that are its own.
  std::uint64_t end_at_own_bytes();
  // Nobody will read: everything that comes is thrown away.
  void discard();
  bool at_end() const { return !pipe_.valid(); }

  void ready(std::uint32_t events) override;

 private:
  enum class State { kReading, kFull, kResting, kDiscarding };

  void read_some();
  bool read_into_sink();
  ssize_t fetch(MutableBytes space);
  void read_ahead();
  void throw_away();
  void rest();
  void wait_for_bytes();
  void finish_sink();
  void close();

  Reactor& reactor_;
  UniqueFd pipe_;
  const bool terminal_;
  std::vector<std::byte> ahead_;  // of a terminal: read when its process ended, and not in the sink yet
  const std::function<void()> full_;
  StreamSink* sink_;  // null once it was told that the stream has ended
  State state_ = State::kReading;
  bool grown_ = false;
  std::uint64_t total_ = 0;             // read into the sink
  std::optional<std::uint64_t> limit_;  // the process's own bytes, once it has ended
  int short_reads_ = 0;                 // in a row
  Clock::time_point last_read_;
  std::optional<Reactor::TimerId> rest_;
};

}  // namespace sluicebox::box
