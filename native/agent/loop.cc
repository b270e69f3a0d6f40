#include "agent/loop.h"

#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <limits>

namespace sluicebox::agent {

namespace {

constexpr Nanoseconds kMillisecond = 1'000'000;

}  // namespace

Nanoseconds monotonic_now() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<Nanoseconds>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

Nanoseconds deadline_after(std::uint64_t milliseconds) {
  const Nanoseconds now = monotonic_now();
  const auto room = static_cast<std::uint64_t>((std::numeric_limits<Nanoseconds>::max() - now) / kMillisecond);
  return now + static_cast<Nanoseconds>(std::min(milliseconds, room)) * kMillisecond;
}

Watch& Watch::operator=(Watch&& other) noexcept {
  if (this != &other) {
    reset();
    loop_ = std::exchange(other.loop_, nullptr);
    fd_ = other.fd_;
    token_ = other.token_;
  }
  return *this;
}

void Watch::wait_for(std::uint32_t events) {
  epoll_event event{.events = events, .data = {.u64 = token_}};
  if (loop_ != nullptr) ::epoll_ctl(loop_->epoll_.get(), EPOLL_CTL_MOD, fd_, &event);
}

void Watch::reset() {
  if (loop_ != nullptr) std::exchange(loop_, nullptr)->forget(fd_, token_);
}

Timer& Timer::operator=(Timer&& other) noexcept {
  if (this != &other) {
    reset();
    loop_ = std::exchange(other.loop_, nullptr);
    at_ = other.at_;
    token_ = other.token_;
  }
  return *this;
}

void Timer::reset() {
  if (loop_ != nullptr) std::exchange(loop_, nullptr)->due_.erase({at_, token_});
}

Result<std::unique_ptr<Loop>> Loop::create() {
  UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll.valid()) return os_error(errno, "cannot make an epoll descriptor");
  return std::unique_ptr<Loop>(new Loop(std::move(epoll)));  // NOLINT: the constructor is private
}

Watch Loop::watch(int fd, std::uint32_t events, Ready ready) {
  const std::uint64_t token = next_token_++;
  epoll_event event{.events = events, .data = {.u64 = token}};
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) return {};
  ready_.emplace(token, std::make_shared<Ready>(std::move(ready)));
  return {this, fd, token};
}

Timer Loop::at(Nanoseconds moment, Due due) {
  const std::uint64_t token = next_token_++;
  due_.emplace(std::pair(moment, token), std::move(due));
  return {this, moment, token};
}

void Loop::forget(int fd, std::uint64_t token) {
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  ready_.erase(token);
}

void Loop::turn() {
  epoll_event events[64];
  const int count = ::epoll_wait(epoll_.get(), events, std::size(events), patience());
  for (int i = 0; i < count; ++i) {
    const auto found = ready_.find(events[i].data.u64);
    if (found == ready_.end()) continue;
    const std::shared_ptr<Ready> ready = found->second;
    (*ready)(events[i].events);
  }
  call_due();
}

// In milliseconds, rounded up: a timer is never early.
int Loop::patience() const {
  if (due_.empty()) return -1;
  const Nanoseconds left = std::max<Nanoseconds>(0, due_.begin()->first.first - monotonic_now());
  return static_cast<int>(std::min<Nanoseconds>((left + kMillisecond - 1) / kMillisecond, 1 << 30));
}

void Loop::call_due() {
  if (due_.empty()) return;
  const Nanoseconds now = monotonic_now();
  while (!due_.empty() && due_.begin()->first.first <= now) {
    const Due due = std::move(due_.extract(due_.begin()).mapped());
    due();
  }
}

}  // namespace sluicebox::agent
