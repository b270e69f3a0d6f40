#include "event_queue/close.h"

namespace sluicebox::event_queue {

const char* close_state_name(CloseState state) {
  switch (state) {
    case CloseState::kOpen:
      return "open";
    case CloseState::kRefusing:
      return "refusing";
    case CloseState::kSettling:
      return "settling";
    case CloseState::kDrained:
      return "drained";
    case CloseState::kClosed:
      return "closed";
  }
  return "unknown";
}

}  // namespace sluicebox::event_queue
