#include "base/thread_pool.h"

#include <doctest/doctest.h>
#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <barrier>
#include <functional>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "base/mutex.h"

namespace sluicebox {
namespace {

using Clock = std::chrono::steady_clock;
Clock::time_point patience() { return Clock::now() + std::chrono::seconds(120); }

struct Counts {
  std::atomic<int> ran{0};
  std::atomic<int> failed{0};
  std::atomic<int> abandoned{0};
  std::atomic<int> destroyed{0};
};

struct TestTask final : Task {
  explicit TestTask(
      Counts& the_counts, std::function<void()> the_work = [] {})
      : counts(the_counts), work(std::move(the_work)) {}
  ~TestTask() override { ++counts.destroyed; }
  void run() override {
    ++counts.ran;
    work();
  }
  void failed() noexcept override { ++counts.failed; }
  void abandon() noexcept override { ++counts.abandoned; }
  Counts& counts;
  std::function<void()> work;
};

// Keeps a worker busy until it is opened.
class Gate {
 public:
  void pass() {
    MutexLock lock(mutex_);
    ++inside_;
    changed_.notify_all();
    while (!open_) changed_.wait(mutex_);
  }
  void open() {
    MutexLock lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  bool wait_inside(int count) {
    MutexLock lock(mutex_);
    const auto deadline = patience();
    while (inside_ < count) {
      if (!changed_.wait_until(mutex_, deadline)) return inside_ >= count;
    }
    return true;
  }

 private:
  Mutex mutex_;
  Condition changed_;
  bool open_ GUARDED_BY(mutex_) = false;
  int inside_ GUARDED_BY(mutex_) = 0;
};

}  // namespace

TEST_CASE("a pool runs every task once, in order of submission on one worker") {
  Counts counts;
  std::vector<int> order;
  Gate done;
  {
    ThreadPool pool(1);
    for (int i = 0; i < 100; ++i) pool.submit(std::make_unique<TestTask>(counts, [&order, i] { order.push_back(i); }));
    done.open();
    pool.submit(std::make_unique<TestTask>(counts, [&] { done.pass(); }));
    REQUIRE(done.wait_inside(1));
    pool.close();
    CHECK(pool.join_until(patience()));
  }
  REQUIRE(order.size() == 100);
  for (int i = 0; i < 100; ++i) CHECK(order[static_cast<std::size_t>(i)] == i);
  CHECK(counts.ran == 101);
  CHECK(counts.abandoned == 0);
  CHECK(counts.destroyed == 101);
}

TEST_CASE("workers run at the same time, bear their names and take no signal") {
  constexpr int kWorkers = 3;
  Counts counts;
  Gate gate;
  std::atomic<int> good{0};
  {
    ThreadPool pool(kWorkers);
    for (int i = 0; i < kWorkers; ++i) {
      pool.submit(std::make_unique<TestTask>(counts, [&] {
        char name[16] = {};
        pthread_getname_np(pthread_self(), name, sizeof name);
        sigset_t blocked;
        pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
        if (std::string(name).starts_with("sluicebox-") && sigismember(&blocked, SIGTERM) == 1 &&
            sigismember(&blocked, SIGCHLD) == 1) {
          ++good;
        }
        gate.pass();
      }));
    }
    CHECK(gate.wait_inside(kWorkers));
    gate.open();
  }
  CHECK(good == kWorkers);
  sigset_t mine;
  pthread_sigmask(SIG_SETMASK, nullptr, &mine);
  CHECK(sigismember(&mine, SIGTERM) == 0);
}

TEST_CASE("what escapes from a task reaches its owner, and the worker goes on") {
  Counts counts;
  Gate gate;
  gate.open();
  ThreadPool pool(1);
  pool.submit(std::make_unique<TestTask>(counts, [] { throw std::bad_alloc(); }));
  pool.submit(std::make_unique<TestTask>(counts, [] { throw 7; }));
  pool.submit(std::make_unique<TestTask>(counts, [&] { gate.pass(); }));
  CHECK(gate.wait_inside(1));
  CHECK(counts.failed == 2);
}

TEST_CASE("close abandons what has not begun, once, and later tasks at once") {
  Counts counts;
  Gate gate;
  ThreadPool pool(1);
  pool.submit(std::make_unique<TestTask>(counts, [&] { gate.pass(); }));
  REQUIRE(gate.wait_inside(1));
  for (int i = 0; i < 5; ++i) pool.submit(std::make_unique<TestTask>(counts));
  pool.close();
  CHECK(counts.abandoned == 5);
  pool.close();
  pool.submit(std::make_unique<TestTask>(counts));
  CHECK(counts.abandoned == 6);
  CHECK(counts.ran == 1);
  gate.open();
  CHECK(pool.join_until(patience()));
  CHECK(pool.join_until(patience()));
  CHECK(counts.destroyed == 7);
}

TEST_CASE("a task submitted while the pool closes is run or abandoned, never both, never neither") {
  for (int round = 0; round < 200; ++round) {
    Counts counts;
    {
      ThreadPool pool(2);
      std::barrier sync(2);
      std::thread closer([&] {
        sync.arrive_and_wait();
        pool.close();
      });
      sync.arrive_and_wait();
      for (int i = 0; i < 20; ++i) pool.submit(std::make_unique<TestTask>(counts));
      closer.join();
    }
    CHECK(counts.ran + counts.abandoned == 20);
    CHECK(counts.destroyed == 20);
  }
}

TEST_CASE("H26: a stuck worker is left behind after the deadline, and finds its memory when it wakes up") {
  struct Stuck {
    Gate gate;
    Counts counts;
  };
  auto stuck = std::make_shared<Stuck>();
  {
    ThreadPool pool(2);
    pool.submit(std::make_unique<TestTask>(stuck->counts, [stuck] { stuck->gate.pass(); }));
    REQUIRE(stuck->gate.wait_inside(1));
    pool.close();
    CHECK_FALSE(pool.join_until(Clock::now() + std::chrono::milliseconds(20)));
  }
  CHECK(stuck->counts.destroyed == 0);
  stuck->gate.open();
  const auto deadline = patience();
  while (stuck->counts.destroyed == 0 && Clock::now() < deadline) std::this_thread::yield();
  CHECK(stuck->counts.destroyed == 1);
}

}  // namespace sluicebox
