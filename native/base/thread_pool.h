// thread_pool.h: a fixed number of worker threads and one FIFO of tasks.
// Knows: threads. Does not know: what a task does, queues, images, JavaScript.
// Threads: submit(), close() and join_until() from any thread; run() and abandon() are each called at most once, never
// both.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>

namespace sluicebox {

class Task {
 public:
  virtual ~Task() = default;
  // On a worker. Whatever escapes (an allocation failure) goes to failed().
  virtual void run() = 0;
  // On the worker, when run() threw: the task's owner must still hear of its end.
  virtual void failed() noexcept = 0;
  // The pool closed before a worker took it: on the thread that called close(), or submit() on a closed pool.
  virtual void abandon() noexcept = 0;
};

class ThreadPool {
 public:
  // Fewer when the system has no more threads to give. A pool without any is closed: see started().
  explicit ThreadPool(std::size_t workers);
  // Closes and joins without a deadline: call join_until() first where a worker may be stuck.
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // How many workers the system gave.
  std::size_t started() const { return started_; }
  // A task for a closed pool is abandoned at once.
  void submit(std::unique_ptr<Task> task);
  // Takes no more tasks and abandons those not begun. Idempotent.
  void close();
  // True when every worker has ended. On false the stuck workers keep the shared state alive and are detached by the
  // destructor.
  bool join_until(std::chrono::steady_clock::time_point deadline);

 private:
  struct Shared;
  std::shared_ptr<Shared> shared_;
  std::size_t started_ = 0;
};

}  // namespace sluicebox
