// packet_socket.h: frames over a SEQPACKET socket: one packet a frame, descriptors with the first.
// Knows: frames, sockets. Does not know: messages.
// Threads: one sender and one receiver at a time.
#pragma once

#include <span>
#include <utility>
#include <vector>

#include "base/unique_fd.h"
#include "protocol/frame.h"

namespace sluicebox::protocol {

// The kernel takes 253 with a message; a virtual machine has two for each layer of its disks.
inline constexpr std::size_t kMaxDescriptors = 240;

// A connected pair, close-on-exec.
Result<std::pair<UniqueFd, UniqueFd>> packet_pair();

// The message in as many frames as it needs. On a socket that does not block, kClosed with os_error EAGAIN when the
// first frame found no room (nothing was sent); a later fragment waits for room, since half a message helps nobody.
Status send_message(int socket, const Header& header, Bytes payload, std::span<const int> descriptors = {});

// One frame as it is, `more` included. Never waits: kClosed with os_error EAGAIN when there is no room.
Status send_frame(int socket, const Header& header, Bytes payload, std::span<const int> descriptors = {});

struct Received {
  Header header;
  std::size_t length = 0;  // of the payload
  std::vector<UniqueFd> descriptors;
};
// One frame, its payload at the start of `buffer` (of at least kMaxPayload). kClosed: the peer hung up (os_error 0), or
// nothing is there on a socket that does not block (EAGAIN). kIo: not a frame, or descriptors were lost on the way.
Result<Received> receive_frame(int socket, MutableBytes buffer);

}  // namespace sluicebox::protocol
