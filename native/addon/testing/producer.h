// producer.h: producers that tests and benchmarks drive from JavaScript. Not part of the addon that ships.
// Knows: Node-API, the queue, Core. Threads: the producers' own, and the JavaScript thread.
#pragma once

#include <napi.h>

#include <chrono>
#include <memory>

#include "addon/core.h"
#include "base/mutex.h"

namespace sluicebox::addon {

// Adds `testing` to the exports: see TestDoor in test/support/producer.ts.
void define_test_producer(Napi::Env env, Napi::Object exports);

namespace testing {

// Where a producer waits, outside of the queue, until the drain has taken something.
class Room {
 public:
  void made() EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    ++takes_;
    changed_.notify_all();
  }
  std::uint64_t takes() EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return takes_;
  }
  // Until a take after `seen`; the short deadline lets the caller look whether its queue was closed.
  void wait_past(std::uint64_t seen) EXCLUDES(mutex_) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(20);
    MutexLock lock(mutex_);
    while (takes_ == seen && changed_.wait_until(mutex_, deadline)) {
    }
  }

 private:
  Mutex mutex_;
  Condition changed_;
  std::uint64_t takes_ GUARDED_BY(mutex_) = 0;
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
