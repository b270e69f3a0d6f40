#include "box/output_pump.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace sluicebox::box {

namespace {

constexpr std::size_t kRead = std::size_t{64} * 1024;
// A program that writes little by little is read in handfuls: after three reads in a row that found less than a
// block, the stream rests. Measured against child_process with 64-byte writes: 1.3 times its speed without, 4.8 with.
constexpr int kShortReads = 3;
constexpr std::chrono::microseconds kRest{250};
// Reads further apart than this are no flood: what a person waits for is read at once.
constexpr std::chrono::milliseconds kPause{1};
// Reads of one stream before the others have their turn.
constexpr int kReadsPerTurn = 4;
constexpr int kHotPipe = 1 << 20;

}  // namespace

OutputPump::OutputPump(Reactor& reactor, UniqueFd pipe, bool terminal, StreamSink& sink, std::function<void()> full)
    : reactor_(reactor), pipe_(std::move(pipe)), terminal_(terminal), full_(std::move(full)), sink_(&sink) {}

OutputPump::~OutputPump() { close(); }

Status OutputPump::start() { return reactor_.watch(pipe_.get(), EPOLLIN, this); }

void OutputPump::resume() {
  if (state_ != State::kFull) return;
  state_ = State::kReading;
  wait_for_bytes();
  // What was read ahead makes no descriptor ready.
  while (!ahead_.empty() && state_ == State::kReading && read_into_sink()) {
  }
}

std::uint64_t OutputPump::end_at_own_bytes() {
  if (limit_) return *limit_;
  if (terminal_ && pipe_.valid() && state_ != State::kDiscarding) {
    read_ahead();
    limit_ = total_ + ahead_.size();
    while (total_ < *limit_ && state_ != State::kFull && read_into_sink()) {
    }
  } else {
    int held = 0;
    if (pipe_.valid()) ::ioctl(pipe_.get(), FIONREAD, &held);
    limit_ = total_ + static_cast<std::uint64_t>(std::max(held, 0));
  }
  if (pipe_.valid() && state_ != State::kDiscarding && total_ == *limit_) discard();
  return *limit_;
}

// A terminal's count leaves out what is on its way through the line discipline; reading fetches that as well.
void OutputPump::read_ahead() {
  std::array<std::byte, 4096> chunk;
  while (ahead_.size() < kRead) {
    const ssize_t got = ::read(pipe_.get(), chunk.data(), chunk.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return;
    ahead_.insert(ahead_.end(), chunk.begin(), chunk.begin() + got);
  }
}

// read(), of what was read ahead first.
ssize_t OutputPump::fetch(MutableBytes space) {
  if (ahead_.empty()) return ::read(pipe_.get(), space.data(), space.size());
  const std::size_t count = std::min(space.size(), ahead_.size());
  std::copy_n(ahead_.begin(), count, space.begin());
  ahead_.erase(ahead_.begin(), ahead_.begin() + static_cast<std::ptrdiff_t>(count));
  return static_cast<ssize_t>(count);
}

void OutputPump::discard() {
  if (!pipe_.valid()) return;
  finish_sink();
  if (rest_) reactor_.cancel(*rest_);
  rest_.reset();
  state_ = State::kDiscarding;
  wait_for_bytes();
}

void OutputPump::ready(std::uint32_t) {
  if (state_ == State::kDiscarding) return throw_away();
  if (state_ == State::kReading) read_some();
  // EPOLLHUP comes also unasked: a stream that is full or rests must not be told of it again and again.
  else
    reactor_.unwatch(pipe_.get());
}

void OutputPump::read_some() {
  for (int i = 0; i < kReadsPerTurn; ++i) {
    if (!read_into_sink()) return;
  }
}

// False: it has read enough for now, or for good.
bool OutputPump::read_into_sink() {
  const std::size_t limit = limit_ ? static_cast<std::size_t>(std::min<std::uint64_t>(kRead, *limit_ - total_)) : kRead;
  const MutableBytes space = sink_->space(limit);
  if (space.empty()) {
    state_ = State::kFull;
    reactor_.unwatch(pipe_.get());
    full_();
    return false;
  }
  ssize_t got = 0;
  do got = fetch(space);
  while (got < 0 && errno == EINTR);
  sink_->filled(static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
  if (got < 0 && errno == EAGAIN) return false;
  if (got <= 0) {  // its end; of a terminal EIO
    finish_sink();
    close();
    return false;
  }
  total_ += static_cast<std::uint64_t>(got);
  if (limit_ && total_ == *limit_) {
    discard();
    return false;
  }
  if (static_cast<std::size_t>(got) == space.size()) {
    short_reads_ = 0;
    if (!grown_) {  // a hot stream; where the user's pipe pages are spent it stays as it is
      grown_ = true;
      ::fcntl(pipe_.get(), F_SETPIPE_SZ, kHotPipe);
    }
    return true;
  }
  const auto now = Clock::now();
  short_reads_ = now - last_read_ > kPause ? 1 : short_reads_ + 1;
  last_read_ = now;
  if (short_reads_ >= kShortReads) rest();
  return false;
}

void OutputPump::throw_away() {
  std::array<std::byte, kRead> nowhere;
  const ssize_t got = ::read(pipe_.get(), nowhere.data(), nowhere.size());
  if (got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR))) return;
  close();
}

void OutputPump::rest() {
  state_ = State::kResting;
  reactor_.change(pipe_.get(), 0);
  rest_ = reactor_.at(Clock::now() + kRest, [this] {
    rest_.reset();
    state_ = State::kReading;
    short_reads_ = kShortReads - 1;  // one more short read, and it rests again
    wait_for_bytes();
  });
}

void OutputPump::wait_for_bytes() {
  reactor_.unwatch(pipe_.get());
  // It was watched before: only a lack of kernel memory can refuse, and then the stream's end is told.
  if (!reactor_.watch(pipe_.get(), EPOLLIN, this).ok()) {
    finish_sink();
    close();
  }
}

void OutputPump::finish_sink() {
  if (sink_ == nullptr) return;
  sink_->finish();
  sink_ = nullptr;
}

void OutputPump::close() {
  if (rest_) reactor_.cancel(*rest_);
  rest_.reset();
  if (!pipe_.valid()) return;
  reactor_.unwatch(pipe_.get());
  pipe_.reset();
}

}  // namespace sluicebox::box
