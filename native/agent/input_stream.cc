#include "agent/input_stream.h"

#include <sys/epoll.h>
#include <unistd.h>

#include <cerrno>

namespace sluicebox::agent {

namespace {

// A terminal's end-of-file character: its other side has no end of file of its own.
constexpr std::byte kEndOfFile{4};
// Not a frame for every few bytes that a program reads.
constexpr std::uint32_t kGrantStep = InputStream::kWindow / 4;

}  // namespace

InputStream::InputStream(Loop& loop, Outbox& outbox, std::uint32_t channel, UniqueFd sink, bool terminal)
    : loop_(loop), outbox_(outbox), channel_(channel), terminal_(terminal), sink_(std::move(sink)) {}

void InputStream::open() {
  owed_ = kWindow;
  say_credit();
  // A pipe whose readers are gone says so unasked. A terminal would for ever say that nobody has it open.
  if (!terminal_) start();
}

bool InputStream::accept(Bytes bytes) {
  if (ending_ || bytes.size() > granted_) return false;
  granted_ -= static_cast<std::uint32_t>(bytes.size());
  if (!sink_.valid()) return true;  // it was on its way when the reader went
  const bool idle = queue_.empty();
  queue_.insert(queue_.end(), bytes.begin(), bytes.end());
  if (idle) write_some();
  return true;
}

void InputStream::end() {
  if (ending_) return;
  ending_ = true;
  if (!sink_.valid()) return;
  const bool idle = queue_.empty();
  if (terminal_) queue_.push_back(kEndOfFile);
  if (idle) write_some();
}

void InputStream::process_ended() {
  if (sink_.valid()) close_early();
}

void InputStream::start() {
  const std::uint32_t events = queue_.empty() ? 0U : std::uint32_t{EPOLLOUT};
  if (watch_.active()) return watch_.wait_for(events);
  watch_ = loop_.watch(sink_.get(), events, [this](std::uint32_t seen) {
    if ((seen & EPOLLERR) != 0) return close_early();
    write_some();
  });
  if (!watch_.active()) close_early();
}

void InputStream::write_some() {
  if (!sink_.valid()) return;
  std::size_t done = 0;
  while (done < queue_.size()) {
    const ssize_t written = ::write(sink_.get(), queue_.data() + done, queue_.size() - done);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0 && errno != EAGAIN) return close_early();  // EPIPE; on a terminal EIO
    if (written <= 0) break;
    done += static_cast<std::size_t>(written);
  }
  queue_.erase(queue_.begin(), queue_.begin() + static_cast<std::ptrdiff_t>(done));
  owed_ += static_cast<std::uint32_t>(done);
  if (queue_.empty()) return drained();
  if (!ending_ && owed_ >= kGrantStep) say_credit();
  start();
}

void InputStream::drained() {
  if (terminal_) {
    watch_.reset();
  } else if (watch_.active()) {
    watch_.wait_for(0);
  }
  if (!ending_) return say_credit();
  // A terminal stays open until its process has ended for good: closed while it exits, the hang-up would become the
  // way it ended.
  if (terminal_) return;
  watch_.reset();
  // A terminal is hung up when its other side is closed everywhere: that would kill a program that has closed its own
  // side and is about to exit. It stays until the process has ended.
  if (!terminal_) sink_.reset();
}

void InputStream::say_credit() {
  if (owed_ == 0) return;
  granted_ += owed_;
  outbox_.send(protocol::Type::kCredit, channel_, 0,
               protocol::encode(protocol::Credit{protocol::Stream::kStdin, owed_}));
  owed_ = 0;
}

void InputStream::close_early() {
  watch_.reset();
  sink_.reset();
  queue_ = {};
  outbox_.send(protocol::Type::kInputClosed, channel_, 0);
}

}  // namespace sluicebox::agent
