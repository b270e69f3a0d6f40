// assembler.h: whole messages from frames: fragments are joined, hostile sequences refused.
// Knows: frames. Does not know: where they come from.
// Threads: one owner at a time.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "protocol/frame.h"

namespace sluicebox::protocol {

struct Message {
  Header header;  // of the last fragment
  Bytes payload;  // borrowed: until the next call
};

class Assembler {
 public:
  // `max_message`: what a message may grow to. Nothing is allocated ahead of the bytes that came.
  explicit Assembler(std::size_t max_message) : max_message_(max_message) {}

  // One frame. Nothing while fragments are missing; kIo for a message past the limit, or fragments that do not belong
  // together. After an error the session is of no more use.
  Result<std::optional<Message>> add(const Header& header, Bytes payload);

 private:
  const std::size_t max_message_;
  std::optional<Header> open_;  // of the message whose fragments are being joined
  std::vector<std::byte> parts_;
};

}  // namespace sluicebox::protocol
