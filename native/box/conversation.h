// conversation.h: whole messages from one link, waited for under a deadline: how a box is talked to before the reactor
// has it. Knows: frames, deadlines, cancellation. Does not know: what is said. Threads: a worker's.
#pragma once

#include <poll.h>

#include <array>
#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "base/cancel.h"
#include "base/result.h"
#include "protocol/assembler.h"
#include "protocol/frame_link.h"

namespace sluicebox::box {

class Conversation {
 public:
  using Deadline = std::chrono::steady_clock::time_point;

  // `whom` is in messages: "its agent".
  Conversation(protocol::FrameLink& link, std::string whom, const CancelToken& cancel, Deadline deadline)
      : link_(link), whom_(std::move(whom)), cancel_(cancel), deadline_(deadline) {}

  // What else is read while this waits. An error of it ends the wait.
  void meanwhile(int fd, std::function<Status()> ready) { others_.push_back({fd, std::move(ready)}); }

  // kBoxStart when the deadline has passed or the other end is gone; kCancelled.
  Result<protocol::Message> next();
  Status send(const protocol::Header& header, Bytes payload, std::span<const int> descriptors = {});

 private:
  struct Other {
    int fd;
    std::function<Status()> ready;
  };
  Status wait(short events);

  protocol::FrameLink& link_;
  const std::string whom_;
  const CancelToken& cancel_;
  const Deadline deadline_;
  std::vector<Other> others_;
  protocol::Assembler assembler_{std::size_t{256} * 1024};
  std::array<std::byte, protocol::kMaxPayload> buffer_{};
};

// The first words on a session, both ways.
Status greet_agent(Conversation& agent);
Status hear_greeting(Conversation& agent);

}  // namespace sluicebox::box
