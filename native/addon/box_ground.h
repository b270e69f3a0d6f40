// box_ground.h: what the work on a runtime's boxes shares across threads: home, engine, reactor, workers.
// Knows: box/, thread pool. Does not know: JavaScript.
// Threads: any.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/mutex.h"
#include "base/path_policy.h"
#include "base/thread_pool.h"
#include "box/engine.h"
#include "box/home.h"
#include "box/reactor.h"
#include "event_queue/operation.h"

namespace sluicebox::addon {

struct BoxGround {
  std::shared_ptr<box::Reactor> reactor;
  std::shared_ptr<box::Engine> engine;
  ThreadPool& pool;
  std::shared_ptr<const PathPolicy> policy;  // of the images that boxes have for disks

  // The home, made and cleaned of what dead owners left when it is asked for first. On a worker.
  Result<std::shared_ptr<const box::Home>> home(const std::string& path) EXCLUDES(mutex_);
  // Runs `work` on a worker; the operation hears of it when that is not to be.
  void on_worker(std::shared_ptr<event_queue::Operation> operation, std::function<void()> work) const;
  // The same for what nobody waits for.
  void on_worker(std::function<void()> work) const;

  // A record that could not be read, for the caller who can be told.
  static void ignore_problem(const Error&) {}

 private:
  Mutex mutex_;
  std::shared_ptr<const box::Home> home_ GUARDED_BY(mutex_);

 public:
  BoxGround(std::shared_ptr<box::Reactor> its_reactor, std::shared_ptr<box::Engine> its_engine, ThreadPool& its_pool,
            std::shared_ptr<const PathPolicy> its_policy)
      : reactor(std::move(its_reactor)), engine(std::move(its_engine)), pool(its_pool), policy(std::move(its_policy)) {}
};

}  // namespace sluicebox::addon
