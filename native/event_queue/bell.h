// bell.h: how a queue tells its one reader that there is something to take.
// Knows: nothing. The addon's bell is a ThreadSafeFunction.
// Threads: ring() from any thread that posts, never two at once, with no queue lock held.
#pragma once

namespace sluicebox::event_queue {

class Bell {
 public:
  virtual ~Bell() = default;
  // Must not call back into the queue: the lock under which the bell can be taken away is held.
  virtual void ring() noexcept = 0;
};

}  // namespace sluicebox::event_queue
