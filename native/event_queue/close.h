// close.h: the one close machine: open, refusing, settling, drained, closed; it only ever moves forward.
// Knows: its own states. Does not know: what is refused, settled or drained.
// Threads: none of its own; the owner's lock guards it, which makes "check for close and register" one step.
#pragma once

#include <cstdint>

namespace sluicebox::event_queue {

enum class CloseState : std::uint8_t {
  kOpen,      // sources may be made
  kRefusing,  // no more sources; those that exist work on
  kSettling,  // in-flight work was told to end
  kDrained,   // every reserved slot was given back and nothing is being dispatched
  kClosed,    // posts hand their payloads back
};

class CloseMachine {
 public:
  CloseState state() const { return state_; }
  bool accepts_sources() const { return state_ == CloseState::kOpen; }
  bool accepts_posts() const { return state_ != CloseState::kClosed; }

  // Each is true for the call that moved the state, and only for that one.
  bool refuse() { return advance(CloseState::kOpen, CloseState::kRefusing); }
  bool settle() { return advance(CloseState::kRefusing, CloseState::kSettling); }
  bool drain() { return advance(CloseState::kSettling, CloseState::kDrained); }
  // From every state: teardown does not wait.
  bool finish() {
    const bool moved = state_ != CloseState::kClosed;
    state_ = CloseState::kClosed;
    return moved;
  }

 private:
  bool advance(CloseState from, CloseState to) {
    if (state_ != from) return false;
    state_ = to;
    return true;
  }
  CloseState state_ = CloseState::kOpen;
};

const char* close_state_name(CloseState state);

}  // namespace sluicebox::event_queue
