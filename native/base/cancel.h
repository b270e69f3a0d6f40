// cancel.h: how a caller asks a running operation to stop, and how the operation says that it is too late.
// Knows: an atomic. Does not know: who asks, or what is stopped.
// Threads: any; the three-way race between cancel, commit and a second cancel is one compare-and-swap.
#pragma once

#include <atomic>

#include "base/result.h"

namespace sluicebox {

class CancelToken {
 public:
  // True when the operation will not commit (now or because of an earlier cancel); false when it already has.
  bool cancel() {
    State expected = State::kOpen;
    // Default (sequentially consistent) order: whatever the winner wrote before is seen by the loser.
    return state_.compare_exchange_strong(expected, State::kCancelled) || expected == State::kCancelled;
  }

  // Called once, just before the step after which the operation's effect stands. After true, cancel() is false.
  bool try_commit() {
    State expected = State::kOpen;
    return state_.compare_exchange_strong(expected, State::kCommitted) || expected == State::kCommitted;
  }

  // Relaxed: a poll in a loop; a late answer costs one more round of the loop.
  bool cancelled() const { return state_.load(std::memory_order_relaxed) == State::kCancelled; }

  // For the loops of operations: TRY(cancel.check()).
  Status check() const {
    if (cancelled()) return Error(ErrorCode::kCancelled, "the operation was cancelled");
    return {};
  }

 private:
  enum class State : unsigned char { kOpen, kCancelled, kCommitted };
  std::atomic<State> state_{State::kOpen};
};

}  // namespace sluicebox
