// stream_sink.h: where the bytes of one output stream go, and how it makes its producer wait.
// Knows: bytes. Does not know: pipes, frames, queues.
// Threads: called from the reactor's thread.
#pragma once

#include <cstddef>

#include "base/bytes.h"

namespace sluicebox::box {

class StreamSink {
 public:
  virtual ~StreamSink() = default;
  // Room for up to `limit` bytes, to be written in place and told by filled() before the next call. Empty: full; the
  // stream is resumed (Execution::resume()) once there is room again.
  virtual MutableBytes space(std::size_t limit) = 0;
  virtual void filled(std::size_t count) = 0;
  // How much it would take now.
  virtual std::size_t room() = 0;
  // No byte follows.
  virtual void finish() = 0;
};

}  // namespace sluicebox::box
