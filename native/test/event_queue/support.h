// support.h: what the queue's tests share: deadlines, seeds, a bell that counts, payloads that say how they ended.
// Knows: the public headers of event_queue. Nothing here sleeps.
// Threads: as each comment says.
#pragma once

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "event_queue/operation.h"
#include "event_queue/queue.h"
#include "event_queue/source.h"

namespace sluicebox::event_queue::test {

using Clock = std::chrono::steady_clock;

// Long enough for a loaded machine under a sanitizer; only a defect waits for it.
inline Clock::time_point patience() { return Clock::now() + std::chrono::seconds(120); }

// For the end of a race that other threads decide: false at the deadline.
template <typename Done>
bool eventually(Done done) {
  const auto deadline = patience();
  while (!done()) {
    if (Clock::now() > deadline) return false;
    std::this_thread::yield();
  }
  return true;
}

// A little time that the compiler cannot take away, to shift one side of a race against the other.
inline void spin(std::uint64_t turns) {
  for (; turns > 0; --turns) std::atomic_signal_fence(std::memory_order_seq_cst);
}

inline std::uint64_t seed(const char* test) {
  const char* given = std::getenv("SLUICEBOX_SEED");
  const std::uint64_t value = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  std::printf("%s: SLUICEBOX_SEED=%llu\n", test, static_cast<unsigned long long>(value));
  return value;
}

inline std::shared_ptr<Queue> make_queue(std::uint32_t events = 4096, std::uint64_t bytes = 64ULL << 20,
                                         std::uint32_t generations = 0xffffffff) {
  return Queue::create({.limits = {.max_events = events, .max_bytes = bytes}, .generation_limit = generations}).value();
}

inline std::string describe(const Queue& queue) {
  const Stats stats = queue.stats();
  return std::string(close_state_name(queue.close_state())) + ", depth " + std::to_string(stats.depth) + ", slots " +
         std::to_string(stats.slots) + ", events " + std::to_string(stats.events) + ", wakeups " +
         std::to_string(stats.wakeups) + ", bytes " + std::to_string(stats.bytes);
}

// ring() from any thread, wait() from the one that drains.
class CountingBell final : public Bell {
 public:
  void ring() noexcept override {
    MutexLock lock(mutex_);
    ++rings_;
    rung_.notify_all();
  }
  int rings() const {
    MutexLock lock(mutex_);
    return rings_;
  }
  // Until it has been rung more often than `seen`.
  bool wait_past(int seen, Clock::time_point deadline = patience()) {
    MutexLock lock(mutex_);
    while (rings_ <= seen) {
      if (!rung_.wait_until(mutex_, deadline)) return rings_ > seen;
    }
    return true;
  }

 private:
  mutable Mutex mutex_;
  Condition rung_;
  int rings_ GUARDED_BY(mutex_) = 0;
};

inline ProgressReport progress(std::uint64_t done, const char* phase = "", std::optional<std::uint64_t> total = {}) {
  return {.phase = phase, .done = done, .total = total, .unit = ProgressUnit::kItems};
}

struct Ends {
  std::atomic<int> reclaimed{0};
  std::atomic<int> destroyed{0};
};

class TestPayload final : public Payload {
 public:
  explicit TestPayload(Ends& ends, std::uint64_t number = 0) : number_(number), ends_(ends) {}
  ~TestPayload() override { ++ends_.destroyed; }
  void reclaim() noexcept override { ++ends_.reclaimed; }
  std::uint64_t number() const { return number_; }

 private:
  const std::uint64_t number_;
  Ends& ends_;
};

// One batch after the other until a take gives nothing.
template <typename Dispatch>
std::size_t drain(Queue& queue, Dispatch dispatch) {
  std::vector<Record> batch(256);
  std::size_t total = 0;
  while (const std::size_t count = queue.take(batch)) {
    for (std::size_t i = 0; i < count; ++i) dispatch(batch[i]);
    total += count;
  }
  return total;
}
inline std::size_t drain(Queue& queue) {
  return drain(queue, [](const Record&) {});
}

}  // namespace sluicebox::event_queue::test
