#include "protocol/packet_socket.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace sluicebox::protocol {

namespace {

union ControlBuffer {
  cmsghdr aligned;
  char bytes[CMSG_SPACE(sizeof(int) * kMaxDescriptors)];
};

// 0, or errno.
int try_frame(int socket, const Header& header, Bytes payload, std::span<const int> descriptors) {
  auto head = encode(header);
  // sendmsg reads only; its interface has no const.
  iovec parts[2] = {{head.data(), head.size()}, {const_cast<std::byte*>(payload.data()), payload.size()}};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = payload.empty() ? 1 : 2;
  ControlBuffer control{};
  if (!descriptors.empty()) {
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
    cmsghdr* rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(descriptors.size_bytes());
    std::memcpy(CMSG_DATA(rights), descriptors.data(), descriptors.size_bytes());
  }
  ssize_t sent = 0;
  do sent = ::sendmsg(socket, &message, MSG_NOSIGNAL);
  while (sent < 0 && errno == EINTR);
  return sent < 0 ? errno : 0;
}

}  // namespace

Result<std::pair<UniqueFd, UniqueFd>> packet_pair() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
    return os_error(errno, "cannot make a socket pair");
  return std::pair(UniqueFd(ends[0]), UniqueFd(ends[1]));
}

Status send_frame(int socket, const Header& header, Bytes payload, std::span<const int> descriptors) {
  if (descriptors.size() > kMaxDescriptors) return Error(ErrorCode::kInternal, "too many descriptors for one message");
  Header frame = header;
  frame.length = static_cast<std::uint32_t>(payload.size());
  const int failed = try_frame(socket, frame, payload, descriptors);
  if (failed == EAGAIN || failed == EPIPE || failed == ECONNRESET) return closed(failed);
  if (failed != 0) return os_error(failed, "cannot send a message");
  return ok_status();
}

Status send_message(int socket, const Header& header, Bytes payload, std::span<const int> descriptors) {
  if (descriptors.size() > kMaxDescriptors) return Error(ErrorCode::kInternal, "too many descriptors for one message");
  bool first = true;
  do {
    const std::size_t take = std::min(payload.size(), kMaxPayload);
    Header frame = header;
    frame.length = static_cast<std::uint32_t>(take);
    frame.more = take < payload.size();
    int failed = 0;
    while ((failed = try_frame(socket, frame, payload.first(take), first ? descriptors : std::span<const int>())) ==
           EAGAIN) {
      if (first) return closed(EAGAIN);
      pollfd room{socket, POLLOUT, 0};
      if (::poll(&room, 1, -1) < 0 && errno != EINTR) return os_error(errno, "cannot wait for a socket");
    }
    if (failed == EPIPE || failed == ECONNRESET) return closed(failed);
    if (failed != 0) return os_error(failed, "cannot send a message");
    payload = payload.subspan(take);
    first = false;
  } while (!payload.empty());
  return ok_status();
}

Result<Received> receive_frame(int socket, MutableBytes buffer) {
  std::array<std::byte, kHeaderSize> head{};
  iovec parts[2] = {{head.data(), head.size()}, {buffer.data(), std::min(buffer.size(), kMaxPayload)}};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  ControlBuffer control{};
  message.msg_control = control.bytes;
  message.msg_controllen = sizeof control.bytes;
  ssize_t got = 0;
  do got = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  while (got < 0 && errno == EINTR);
  if (got < 0 && errno == EAGAIN) return closed(EAGAIN);
  if (got == 0 || (got < 0 && errno == ECONNRESET)) return closed(0);
  if (got < 0) return os_error(errno, "cannot receive a message");

  Received received;
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr; part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof fd);
      received.descriptors.emplace_back(fd);
    }
  }
  if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) return Error(ErrorCode::kIo, "a packet was cut short");
  if (static_cast<std::size_t>(got) < kHeaderSize) return Error(ErrorCode::kIo, "a frame is shorter than its header");
  received.header = TRY(decode_header(head));
  received.length = static_cast<std::size_t>(got) - kHeaderSize;
  if (received.length != received.header.length) return Error(ErrorCode::kIo, "a frame's length is not its packet's");
  return received;
}

}  // namespace sluicebox::protocol
