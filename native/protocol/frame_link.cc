#include "protocol/frame_link.h"

#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace sluicebox::protocol {

namespace {

// Several frames in one system call.
constexpr std::size_t kReadSize = std::size_t{256} * 1024;

Error broken(int os_error) {
  const bool gone = os_error == EPIPE || os_error == ECONNRESET || os_error == ENODEV || os_error == 0;
  if (gone || os_error == EAGAIN) return closed(os_error);
  return sluicebox::os_error(os_error, "cannot use a stream");
}

// Bytes, or -1 with errno set.
template <typename Call>
ssize_t uninterrupted(Call call) {
  ssize_t done = 0;
  do done = call();
  while (done < 0 && errno == EINTR);
  return done;
}

}  // namespace

void FrameLink::reset() {
  fd_.reset();
  unsent_.clear();
  begin_ = end_ = 0;
}

UniqueFd FrameLink::release() {
  UniqueFd fd = std::move(fd_);
  reset();
  return fd;
}

// ---------- out ----------
Status FrameLink::send(const Header& header, Bytes payload, std::span<const int> descriptors) {
  if (kind_ == Kind::kPackets) return send_frame(fd_.get(), header, payload, descriptors);
  if (!descriptors.empty()) return Error(ErrorCode::kInternal, "a stream passes no descriptors");
  TRY(flush());
  Header frame = header;
  frame.length = static_cast<std::uint32_t>(payload.size());
  auto head = encode(frame);
  // writev reads only; its interface has no const.
  const iovec parts[2] = {{head.data(), head.size()}, {const_cast<std::byte*>(payload.data()), payload.size()}};
  const ssize_t done = uninterrupted([&] { return ::writev(fd_.get(), parts, payload.empty() ? 1 : 2); });
  if (done < 0) return broken(errno);
  const auto sent = static_cast<std::size_t>(done);
  if (sent < head.size()) unsent_.assign(head.begin() + done, head.end());
  const std::size_t of_payload = sent > head.size() ? sent - head.size() : 0;
  unsent_.insert(unsent_.end(), payload.begin() + static_cast<std::ptrdiff_t>(of_payload), payload.end());
  return ok_status();
}

Status FrameLink::flush() {
  while (!unsent_.empty()) {
    const ssize_t done = uninterrupted([&] { return ::write(fd_.get(), unsent_.data(), unsent_.size()); });
    // A port that its driver has reset takes nothing at all, and says that there is room.
    if (done <= 0) return broken(done < 0 ? errno : EPIPE);
    unsent_.erase(unsent_.begin(), unsent_.begin() + done);
  }
  return ok_status();
}

// ---------- in ----------
Result<Received> FrameLink::receive(MutableBytes buffer) {
  if (kind_ == Kind::kPackets) return receive_frame(fd_.get(), buffer);
  while (!buffered()) {
    if (read_.empty()) read_.resize(kReadSize);
    if (begin_ > 0) {
      std::memmove(read_.data(), read_.data() + begin_, end_ - begin_);
      end_ -= std::exchange(begin_, 0);
    }
    const ssize_t done = uninterrupted([&] { return ::read(fd_.get(), read_.data() + end_, read_.size() - end_); });
    if (done <= 0) return broken(done < 0 ? errno : 0);
    end_ += static_cast<std::size_t>(done);
  }
  return cut(buffer);
}

bool FrameLink::buffered() const {
  if (end_ - begin_ < kHeaderSize) return false;
  const auto header = decode_header(Bytes(read_).subspan(begin_, kHeaderSize));
  return !header.ok() || end_ - begin_ - kHeaderSize >= header.value().length;
}

Result<Received> FrameLink::cut(MutableBytes buffer) {
  Received received;
  received.header = TRY(decode_header(Bytes(read_).subspan(begin_, kHeaderSize)));
  received.length = received.header.length;
  if (received.length > buffer.size()) return Error(ErrorCode::kInternal, "a frame is longer than its buffer");
  if (received.length > 0) std::memcpy(buffer.data(), read_.data() + begin_ + kHeaderSize, received.length);
  begin_ += kHeaderSize + received.length;
  if (begin_ == end_) begin_ = end_ = 0;
  return received;
}

}  // namespace sluicebox::protocol
