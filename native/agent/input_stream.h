// input_stream.h: a framed stdin: what the host sends goes into a pipe or terminal, no faster than it is read there.
// Knows: its descriptor, credit. Does not know: the process.
// Threads: one.
#pragma once

#include <cstdint>
#include <vector>

#include "agent/loop.h"
#include "agent/outbox.h"
#include "base/unique_fd.h"
#include "protocol/messages.h"

namespace sluicebox::agent {

class InputStream {
 public:
  // What the host may send ahead of the reader.
  static constexpr std::uint32_t kWindow = 64 * 1024;

  // `sink` does not block.
  InputStream(Loop& loop, Outbox& outbox, std::uint32_t channel, UniqueFd sink, bool terminal);
  // The host may send from now on.
  void open();

  // False: more than was granted, or after the end.
  bool accept(Bytes bytes);
  // The end of file, after what was accepted.
  void end();
  void process_ended();

 private:
  void start();
  void write_some();
  void drained();
  void say_credit();
  void close_early();

  Loop& loop_;
  Outbox& outbox_;
  const std::uint32_t channel_;
  const bool terminal_;
  UniqueFd sink_;
  Watch watch_;
  std::vector<std::byte> queue_;  // accepted, not yet written
  std::uint32_t granted_ = 0;     // what the host may still send
  std::uint32_t owed_ = 0;        // written, but not yet granted again
  bool ending_ = false;
};

}  // namespace sluicebox::agent
