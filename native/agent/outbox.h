// outbox.h: what goes out on a session: frames in order, kept while its link is full.
// Knows: frames, the session's link. Does not know: what the frames say.
// Threads: one.
#pragma once

#include <deque>
#include <functional>
#include <vector>

#include "base/unique_fd.h"
#include "protocol/frame_link.h"

namespace sluicebox::agent {

class Outbox {
 public:
  // What may pile up for a peer that does not read. Bytes of streams stop long before: they are not taken from their
  // pipe while anything waits here.
  static constexpr std::size_t kLimit = std::size_t{4} * 1024 * 1024;

  // `link` is the session's. `full`: flush() is to be called when there is room again. `broken`:
  // the peer is gone, or reads too slowly; everything said from now on is lost.
  Outbox(protocol::FrameLink& link, std::function<void()> full, std::function<void()> broken)
      : link_(link), full_(std::move(full)), broken_(std::move(broken)) {}

  // At most one frame's payload. The descriptor, if any, travels with it.
  void send(protocol::Type type, std::uint32_t channel, std::uint32_t request, Bytes payload = {},
            UniqueFd descriptor = {});
  void flush();

  // What is said from now on stays here until release(); what was said before goes out.
  void hold() { held_ = true, before_hold_ = queue_.size(); }
  void release() { held_ = false; }
  // Nothing that was said was ever said.
  void forget();

  bool waiting() const { return held_ || wants_room(); }
  // Something is to go out as soon as the link takes it.
  bool wants_room() const { return (held_ ? before_hold_ > 0 : !queue_.empty()) || link_.unsent(); }
  // Nothing is sent any more, from now on.
  void close();

 private:
  struct Item {
    protocol::Header header;
    std::vector<std::byte> payload;
    UniqueFd descriptor;
  };
  enum class Sent { kYes, kFull, kBroken };
  Sent try_send(const protocol::Header& header, Bytes payload, const UniqueFd& descriptor);
  void give_up();

  protocol::FrameLink& link_;
  const std::function<void()> full_;
  const std::function<void()> broken_;
  std::deque<Item> queue_;
  std::size_t queued_bytes_ = 0;
  bool closed_ = false;
  bool held_ = false;
  std::size_t before_hold_ = 0;  // how many of the queue go out all the same
};

}  // namespace sluicebox::agent
