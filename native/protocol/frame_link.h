// frame_link.h: frames over one descriptor that does not block: packets of a socket, or a stream of bytes.
// Knows: frames. Does not know: messages, who is at the other end.
// Threads: one at a time.
//
// A stream (a virtual machine's serial port) keeps no borders and passes no descriptors: what it takes of a frame only
// in part waits here, what it gives beyond a frame does too. So a stream's owner asks buffered() and unsent() before it
// waits for the descriptor.
#pragma once

#include <span>
#include <vector>

#include "base/unique_fd.h"
#include "protocol/packet_socket.h"

namespace sluicebox::protocol {

class FrameLink {
 public:
  enum class Kind : std::uint8_t { kPackets, kStream };

  FrameLink() = default;
  FrameLink(UniqueFd fd, Kind kind) : fd_(std::move(fd)), kind_(kind) {}

  int get() const { return fd_.get(); }
  bool valid() const { return fd_.valid(); }
  bool is_stream() const { return kind_ == Kind::kStream; }
  void reset();
  // For who speaks there next. Nothing may be on its way.
  UniqueFd release();

  // One frame as it is. kClosed with os_error EAGAIN when there is no room: nothing of it was sent.
  Status send(const Header& header, Bytes payload, std::span<const int> descriptors = {});
  // The rest of a frame that is on its way. kClosed with EAGAIN while some of it is left.
  Status flush();
  bool unsent() const { return !unsent_.empty(); }

  // One frame, its payload at the start of `buffer` (of at least kMaxPayload). Errors as receive_frame()'s.
  Result<Received> receive(MutableBytes buffer);
  // receive() has a whole frame, or its refusal, without reading.
  bool buffered() const;

 private:
  Result<Received> cut(MutableBytes buffer);

  UniqueFd fd_;
  Kind kind_ = Kind::kPackets;
  std::vector<std::byte> unsent_;
  std::vector<std::byte> read_;  // allocated by the first read
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
};

}  // namespace sluicebox::protocol
