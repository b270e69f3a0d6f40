// loop.h: one thread's events: descriptors that are ready, and moments that have come.
// Knows: epoll, the monotonic clock. Does not know: what a descriptor is.
// Threads: one. A callback may end its own watch or timer, or any other.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <unordered_map>
#include <utility>

#include "base/result.h"
#include "base/unique_fd.h"

namespace sluicebox::agent {

using Nanoseconds = std::int64_t;

Nanoseconds monotonic_now();
// From now on. What lies too far ahead to be counted is as far as can be counted.
Nanoseconds deadline_after(std::uint64_t milliseconds);

class Loop;

// While it lives its callback is called as often as the descriptor is ready (level-triggered). It must go before the
// descriptor does.
class Watch {
 public:
  Watch() = default;
  Watch(Loop* loop, int fd, std::uint64_t token) : loop_(loop), fd_(fd), token_(token) {}
  Watch(Watch&& other) noexcept : loop_(std::exchange(other.loop_, nullptr)), fd_(other.fd_), token_(other.token_) {}
  Watch& operator=(Watch&& other) noexcept;
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;
  ~Watch() { reset(); }

  bool active() const { return loop_ != nullptr; }
  void wait_for(std::uint32_t events);
  void reset();

 private:
  Loop* loop_ = nullptr;
  int fd_ = -1;
  std::uint64_t token_ = 0;
};

// Its callback is called once, unless it goes before.
class Timer {
 public:
  Timer() = default;
  Timer(Loop* loop, Nanoseconds at, std::uint64_t token) : loop_(loop), at_(at), token_(token) {}
  Timer(Timer&& other) noexcept : loop_(std::exchange(other.loop_, nullptr)), at_(other.at_), token_(other.token_) {}
  Timer& operator=(Timer&& other) noexcept;
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;
  ~Timer() { reset(); }

  bool active() const { return loop_ != nullptr; }
  Nanoseconds at() const { return at_; }
  void reset();

 private:
  Loop* loop_ = nullptr;
  Nanoseconds at_ = 0;
  std::uint64_t token_ = 0;
};

class Loop {
 public:
  using Ready = std::function<void(std::uint32_t events)>;
  using Due = std::function<void()>;

  static Result<std::unique_ptr<Loop>> create();

  // Not active when the kernel has no room for it.
  Watch watch(int fd, std::uint32_t events, Ready ready);
  Timer at(Nanoseconds moment, Due due);

  // Waits for the next events and calls back for each.
  void turn();

 private:
  friend class Watch;
  friend class Timer;

  explicit Loop(UniqueFd epoll) : epoll_(std::move(epoll)) {}
  void forget(int fd, std::uint64_t token);
  int patience() const;
  void call_due();

  const UniqueFd epoll_;
  std::uint64_t next_token_ = 1;
  // By token and not by address: an event may be in hand for a watch that ended a moment ago. Shared, so that a
  // callback outlives its own run when it ends its watch.
  std::unordered_map<std::uint64_t, std::shared_ptr<Ready>> ready_;
  std::map<std::pair<Nanoseconds, std::uint64_t>, Due> due_;
};

}  // namespace sluicebox::agent
