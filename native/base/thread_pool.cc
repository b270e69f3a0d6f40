#include "base/thread_pool.h"

#include <pthread.h>
#include <signal.h>

#include <deque>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "base/mutex.h"

namespace sluicebox {

// Owned by the pool and by each worker, so that a stuck worker finds it whenever it wakes up.
struct ThreadPool::Shared {
  Mutex mutex;
  // Apart, so that the notice of one task cannot go to a thread that joins.
  Condition work;   // a task came, or the pool closed
  Condition ended;  // a worker ended
  std::deque<std::unique_ptr<Task>> tasks GUARDED_BY(mutex);
  std::vector<std::thread> threads GUARDED_BY(mutex);
  std::size_t running GUARDED_BY(mutex) = 0;  // workers that have not ended
  bool closed GUARDED_BY(mutex) = false;
  bool stuck GUARDED_BY(mutex) = false;  // a join missed its deadline

  std::unique_ptr<Task> next() EXCLUDES(mutex) {
    MutexLock lock(mutex);
    while (tasks.empty()) {
      if (closed) return nullptr;
      work.wait(mutex);
    }
    auto task = std::move(tasks.front());
    tasks.pop_front();
    return task;
  }

  void worker_ended() EXCLUDES(mutex) {
    MutexLock lock(mutex);
    --running;
    ended.notify_all();
  }
};

namespace {

// A worker takes no signal: handlers belong to the program's own threads. New threads inherit the mask.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_;
};

void run_task(std::unique_ptr<Task> task) {
  try {
    task->run();
  } catch (...) {
    // The root of a thread: nothing may pass it, and the task's owner still hears.
    task->failed();
  }
}

}  // namespace

ThreadPool::ThreadPool(std::size_t workers) : shared_(std::make_shared<Shared>()) {
  const SignalsBlocked blocked;
  MutexLock lock(shared_->mutex);
  shared_->threads.reserve(workers);
  for (std::size_t i = 0; i < workers; ++i) {
    try {
      shared_->threads.emplace_back([shared = shared_, i] {
        // 15 characters are the kernel's limit; a longer name is refused and the thread keeps its parent's.
        pthread_setname_np(pthread_self(), ("sluicebox-" + std::to_string(i)).c_str());
        while (auto task = shared->next()) run_task(std::move(task));
        shared->worker_ended();
      });
      ++shared_->running;
    } catch (const std::system_error&) {
      break;  // The system has no more threads: fewer workers do the same work.
    }
  }
  // With no worker at all a task would wait forever.
  started_ = shared_->threads.size();
  shared_->closed = started_ == 0;
}

ThreadPool::~ThreadPool() {
  close();
  std::vector<std::thread> threads;
  bool stuck = false;
  {
    MutexLock lock(shared_->mutex);
    threads.swap(shared_->threads);
    stuck = shared_->stuck && shared_->running > 0;
  }
  for (auto& thread : threads) {
    if (stuck) {
      thread.detach();
    } else {
      thread.join();
    }
  }
}

void ThreadPool::submit(std::unique_ptr<Task> task) {
  {
    MutexLock lock(shared_->mutex);
    if (!shared_->closed) {
      shared_->tasks.push_back(std::move(task));
      shared_->work.notify_one();
      return;
    }
  }
  task->abandon();
}

void ThreadPool::close() {
  std::deque<std::unique_ptr<Task>> waiting;
  {
    MutexLock lock(shared_->mutex);
    shared_->closed = true;
    waiting.swap(shared_->tasks);
    shared_->work.notify_all();
  }
  for (auto& task : waiting) task->abandon();
}

bool ThreadPool::join_until(std::chrono::steady_clock::time_point deadline) {
  std::vector<std::thread> threads;
  {
    MutexLock lock(shared_->mutex);
    while (shared_->running > 0) {
      if (!shared_->ended.wait_until(shared_->mutex, deadline) && shared_->running > 0) {
        shared_->stuck = true;
        return false;
      }
    }
    threads.swap(shared_->threads);
  }
  // Each has said that it ended: these joins wait for the last instructions of a thread.
  for (auto& thread : threads) thread.join();
  return true;
}

}  // namespace sluicebox
