// producer.h: producers that tests and benchmarks drive from JavaScript. Not part of the addon that ships.
// Knows: Node-API, the queue, Core. Threads: the producers' own, and the JavaScript thread.
#pragma once

#include <napi.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <memory>
#include <utility>

#include "addon/core.h"
#include "base/mutex.h"

namespace sluicebox::addon {

// Adds `testing` to the exports: see TestDoor in test/support/producer.ts.
void define_test_producer(Napi::Env env, Napi::Object exports);

namespace testing {

// Where producers wait, outside of the queue, until the drain has made room.
class Room {
 public:
  struct Mark {
    std::uint64_t taken = 0;
    std::uint64_t emptied = 0;
  };

  // The drain took `count` records; none: it found the queue empty.
  void made(std::size_t count) EXCLUDES(mutex_) {
    {
      MutexLock lock(mutex_);
      mark_.taken += count;
      if (count == 0) ++mark_.emptied;
      if (count > 0 && mark_.taken < wanted_) return;
      if (std::exchange(wanted_, kNobody) == kNobody) return;
    }
    changed_.notify_all();  // after the lock is let go, which is what the woken want first
  }
  Mark mark() EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return mark_;
  }
  // Until `count` records were taken after `seen`, or the queue was empty; the short deadline lets the caller look
  // whether its queue was closed. Whoever waits for many records is woken once for all of them.
  void wait(Mark seen, std::uint64_t count) EXCLUDES(mutex_) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(20);
    MutexLock lock(mutex_);
    do {
      if (mark_.taken >= seen.taken + count || mark_.emptied != seen.emptied) return;
      wanted_ = std::min(wanted_, seen.taken + count);
    } while (changed_.wait_until(mutex_, deadline));
  }

 private:
  static constexpr std::uint64_t kNobody = std::numeric_limits<std::uint64_t>::max();

  Mutex mutex_;
  Condition changed_;
  Mark mark_ GUARDED_BY(mutex_);
  std::uint64_t wanted_ GUARDED_BY(mutex_) = kNobody;  // the least that anybody waits for
};

std::shared_ptr<Room> room_of(Core& core);
Core& core_of(const Napi::Value& value);

Napi::Function define_event_flood(Napi::Env env);
Napi::Function define_lane_flood(Napi::Env env);
Napi::Function define_peer(Napi::Env env);
// Operations that do as their request says: settle, fail, throw, or wait at a gate.
void define_work(Napi::Env env, Napi::Object testing);

}  // namespace testing

}  // namespace sluicebox::addon
