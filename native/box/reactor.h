// reactor.h: the one thread that owns every descriptor of every box in this process: readiness, deadlines, tasks.
// Knows: epoll. Does not know: boxes, executions, queues, JavaScript.
// Threads: start(), post() and stop() from any thread; everything else from the reactor's own thread, which runs all
// watchers, timers and tasks. None of them may block.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/mutex.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace sluicebox::box {

using Clock = std::chrono::steady_clock;

// Whoever wants to hear of a descriptor.
class Watcher {
 public:
  virtual ~Watcher() = default;
  virtual void ready(std::uint32_t events) = 0;  // EPOLLIN and so on
};

class Reactor {
  struct Private {
    explicit Private() = default;
  };

 public:
  static Result<std::shared_ptr<Reactor>> start();
  Reactor(Private, UniqueFd epoll, UniqueFd wake);
  // Stops and joins.
  ~Reactor();
  Reactor(const Reactor&) = delete;
  Reactor& operator=(const Reactor&) = delete;

  // Runs `task` on the reactor's thread, in the order of the calls. False when it has stopped: the task is dropped.
  bool post(std::function<void()> task) EXCLUDES(mutex_);
  // Runs what was posted before, ends the thread and joins it. Idempotent. Not from the reactor's own thread.
  void stop() EXCLUDES(mutex_);

  // --- from the reactor's thread ---
  // What a watcher is told of; 0: only EPOLLHUP and EPOLLERR. The descriptor is not closed while it is watched.
  Status watch(int fd, std::uint32_t events, Watcher* watcher);
  void change(int fd, std::uint32_t events);
  // From here on the watcher is not called, also for what is ready already.
  void unwatch(int fd);

  using TimerId = std::pair<Clock::time_point, std::uint64_t>;
  TimerId at(Clock::time_point when, std::function<void()> task);
  void cancel(const TimerId& timer) { timers_.erase(timer); }

 private:
  void run();
  void run_tasks() EXCLUDES(mutex_);
  void run_timers();

  static constexpr int kEvents = 64;
  struct Watched {
    Watcher* watcher = nullptr;
    std::uint64_t token = 0;  // tells a descriptor from an older one of the same number
  };

  const UniqueFd epoll_;
  const UniqueFd wake_;
  std::thread thread_;

  // The reactor's thread.
  std::unordered_map<int, Watched> watched_;
  std::uint64_t next_token_ = 1;
  std::map<TimerId, std::function<void()>> timers_;
  std::uint64_t next_timer_ = 0;

  Mutex mutex_;
  std::vector<std::function<void()>> tasks_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
};

}  // namespace sluicebox::box
