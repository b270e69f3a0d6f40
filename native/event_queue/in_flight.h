// in_flight.h: what a running operation and the other side of its handle share: the wish to stop, and the latest
// report. Knows: cancel tokens, progress reports. Does not know: queues, handles, who asks or who listens. Threads:
// any.
#pragma once

#include <optional>

#include "base/cancel.h"
#include "base/mutex.h"
#include "base/progress.h"

namespace sluicebox::event_queue {

// Latest wins: a report overwrites the one before it, so that a reader who falls behind costs nothing.
class LatestProgress {
 public:
  // Calls `announce` when no earlier report waits to be taken. It runs under the lock, so that nothing is announced
  // after finish() has returned; it must not come back here. `done` is never seen to decrease.
  template <typename Announce>
  void put(const ProgressReport& report, Announce announce) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (store(report)) announce();
  }
  // The latest report that was not taken yet.
  std::optional<ProgressReport> take() EXCLUDES(mutex_);
  // Reports that come later are ignored; one that waits can still be taken.
  void finish() EXCLUDES(mutex_);

 private:
  bool store(const ProgressReport& report) REQUIRES(mutex_);

  Mutex mutex_;
  ProgressReport latest_ GUARDED_BY(mutex_);
  bool waiting_ GUARDED_BY(mutex_) = false;
  bool finished_ GUARDED_BY(mutex_) = false;
};

struct InFlight {
  CancelToken cancel;
  LatestProgress progress;
};

}  // namespace sluicebox::event_queue
