#include "event_queue/in_flight.h"

#include <algorithm>

namespace sluicebox::event_queue {

bool LatestProgress::store(const ProgressReport& report) {
  if (finished_) return false;
  const std::uint64_t floor = latest_.done;
  latest_ = report;
  latest_.done = std::max(report.done, floor);
  const bool first = !waiting_;
  waiting_ = true;
  return first;
}

std::optional<ProgressReport> LatestProgress::take() {
  MutexLock lock(mutex_);
  if (!waiting_) return std::nullopt;
  waiting_ = false;
  return latest_;
}

void LatestProgress::finish() {
  MutexLock lock(mutex_);
  finished_ = true;
}

}  // namespace sluicebox::event_queue
