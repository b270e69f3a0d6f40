#include "agent/output_stream.h"

#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <limits>

namespace sluicebox::agent {

namespace {

// So that one stream that never runs dry does not hold up the rest.
constexpr int kReadsPerTurn = 4;
// What a terminal holds is less; what comes beyond is others', who go on writing.
constexpr std::size_t kReadAhead = std::size_t{64} * 1024;

// The stream's number, then its bytes.
using Buffer = std::array<std::byte, 1 + protocol::kMaxData>;

ssize_t read_some(int fd, MutableBytes into) {
  ssize_t got = 0;
  do got = ::read(fd, into.data(), into.size());
  while (got < 0 && errno == EINTR);
  return got;
}

}  // namespace

OutputStream::OutputStream(Loop& loop, Outbox& outbox, std::uint32_t channel, protocol::Stream stream, UniqueFd source,
                           bool terminal, std::uint32_t credit)
    : loop_(loop),
      outbox_(outbox),
      channel_(channel),
      stream_(stream),
      terminal_(terminal),
      source_(std::move(source)),
      credit_(credit) {
  start();
}

void OutputStream::grant(std::uint32_t bytes) {
  credit_ = std::min(credit_, std::numeric_limits<std::uint64_t>::max() - bytes) + bytes;
  resume();
}

void OutputStream::discard() {
  if (closed()) return;
  discarding_ = true;
  pending_.clear();
  if (own_) say_end();
  start();
}

void OutputStream::resume() {
  if (closed()) return;
  start();
  pump();
}

std::uint64_t OutputStream::measure() {
  if (closed() || discarding_) {
    own_ = sent_;
    return sent_;
  }
  int waiting = 0;
  // A terminal's count leaves out what is on its way through the line discipline; reading fetches that as well.
  if (terminal_) {
    read_ahead();
  } else if (::ioctl(source_.get(), FIONREAD, &waiting) != 0) {
    waiting = 0;
  }
  own_ = sent_ + pending_.size() + static_cast<std::uint64_t>(waiting);
  return *own_;
}

void OutputStream::settle() {
  if (closed() || !own_ || sent_ < *own_) return;
  say_end();
  discarding_ = true;
  start();
}

void OutputStream::start() {
  if (watch_.active()) return;
  watch_ = loop_.watch(source_.get(), EPOLLIN, [this](std::uint32_t) { pump(); });
  if (!watch_.active()) finish();
}

void OutputStream::pump() {
  if (!discarding_) send_pending();
  for (int reads = 0; reads < kReadsPerTurn && !closed(); ++reads) {
    if (discarding_) {
      if (!throw_away()) return;
      continue;
    }
    // A watch on a pipe that is not to be read would go off for ever, at the latest when its writers are gone.
    if (outbox_.waiting() || !pending_.empty()) return watch_.reset();
    if (!take()) return;
  }
}

void OutputStream::send_pending() {
  std::size_t done = 0;
  while (done < pending_.size() && credit_ > 0 && !outbox_.waiting()) {
    Buffer buffer;
    const std::size_t count = std::min({pending_.size() - done, protocol::kMaxData, std::size_t{credit_}});
    std::copy_n(pending_.begin() + static_cast<std::ptrdiff_t>(done), count, buffer.begin() + 1);
    done += count;
    send(MutableBytes(buffer).first(1 + count));
  }
  pending_.erase(pending_.begin(), pending_.begin() + static_cast<std::ptrdiff_t>(done));
  settle();
}

// One read into one frame. Without credit a single byte is read: so the end of the stream is seen in time.
bool OutputStream::take() {
  Buffer buffer;
  std::size_t limit = std::min<std::uint64_t>(protocol::kMaxData, std::max<std::uint64_t>(credit_, 1));
  if (own_) limit = std::min<std::uint64_t>(limit, *own_ - sent_);
  const ssize_t got = read_some(source_.get(), MutableBytes(buffer).subspan(1, limit));
  if (got < 0 && errno == EAGAIN) return false;
  if (got <= 0) {  // on a terminal EIO: nobody has its other side open
    finish();
    return false;
  }
  const auto count = static_cast<std::size_t>(got);
  if (credit_ == 0) {
    pending_.assign(buffer.begin() + 1, buffer.begin() + 1 + got);
    return true;
  }
  send(MutableBytes(buffer).first(1 + count));
  settle();
  return true;
}

bool OutputStream::throw_away() {
  std::array<std::byte, 65536> scratch;
  const ssize_t got = read_some(source_.get(), scratch);
  if (got < 0 && errno == EAGAIN) return false;
  if (got > 0) return true;
  finish();
  return false;
}

void OutputStream::read_ahead() {
  while (pending_.size() < kReadAhead) {
    std::array<std::byte, 4096> chunk;
    const ssize_t got = read_some(source_.get(), chunk);
    if (got <= 0) return;
    pending_.insert(pending_.end(), chunk.begin(), chunk.begin() + got);
  }
}

// `framed`: a first byte that is free, then what was read.
void OutputStream::send(MutableBytes framed) {
  framed[0] = static_cast<std::byte>(stream_);
  outbox_.send(protocol::Type::kOutput, channel_, 0, framed);
  sent_ += framed.size() - 1;
  credit_ -= framed.size() - 1;
}

void OutputStream::say_end() {
  if (end_said_) return;
  end_said_ = true;
  outbox_.send(protocol::Type::kOutputEnd, channel_, 0, protocol::encode(protocol::OfStream{stream_}));
}

void OutputStream::finish() {
  say_end();
  watch_.reset();
  source_.reset();
}

}  // namespace sluicebox::agent
