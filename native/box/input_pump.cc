#include "box/input_pump.h"

#include <sys/epoll.h>
#include <unistd.h>

#include <cerrno>

namespace sluicebox::box {

namespace {

constexpr std::byte kEndOfFile{0x04};  // VEOF, as a terminal is set up

}  // namespace

Error stdin_closed() { return {ErrorCode::kStdinClosed, "stdin is closed: the process ended or reads it no more"}; }

InputPump::InputPump(Reactor& reactor, UniqueFd pipe, bool terminal, Answer answer)
    : reactor_(reactor), pipe_(std::move(pipe)), terminal_(terminal), answer_(std::move(answer)) {}

InputPump::~InputPump() {
  if (watching_) reactor_.unwatch(pipe_.get());
}

void InputPump::write(std::uint32_t request, std::vector<std::byte> bytes) {
  if (!pipe_.valid() || ended_) return answer_(request, stdin_closed());
  pending_.push_back({.request = request, .bytes = std::move(bytes), .last = false});
  if (!watching_) push();
}

void InputPump::end(std::uint32_t request) {
  if (!pipe_.valid() || ended_) return answer_(request, ok_status());
  ended_ = true;
  pending_.push_back(
      {.request = request, .bytes = terminal_ ? std::vector{kEndOfFile} : std::vector<std::byte>(), .last = true});
  if (!watching_) push();
}

void InputPump::close() {
  if (watching_) reactor_.unwatch(pipe_.get());
  watching_ = false;
  pipe_.reset();
  done_ = 0;
  std::deque<Pending> pending;
  pending.swap(pending_);
  for (const Pending& each : pending) answer_(each.request, each.last ? ok_status() : stdin_closed());
}

void InputPump::ready(std::uint32_t) { push(); }

void InputPump::push() {
  while (!pending_.empty()) {
    if (!push_front()) return;
  }
  if (watching_) reactor_.unwatch(pipe_.get());
  watching_ = false;
}

// False: the pipe is full, or closed.
bool InputPump::push_front() {
  Pending& first = pending_.front();
  while (done_ < first.bytes.size()) {
    const ssize_t put = ::write(pipe_.get(), first.bytes.data() + done_, first.bytes.size() - done_);
    if (put >= 0) {
      done_ += static_cast<std::size_t>(put);
    } else if (errno == EAGAIN) {
      if (!watching_) watching_ = reactor_.watch(pipe_.get(), EPOLLOUT, this).ok();
      if (!watching_) close();
      return false;
    } else if (errno != EINTR) {
      close();
      return false;
    }
  }
  const Pending done = std::move(first);
  pending_.pop_front();
  done_ = 0;
  if (done.last && !terminal_) {
    if (watching_) reactor_.unwatch(pipe_.get());
    watching_ = false;
    pipe_.reset();
  }
  answer_(done.request, ok_status());
  return pipe_.valid();
}

}  // namespace sluicebox::box
