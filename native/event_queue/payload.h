// payload.h: what an operation made, on its way to whoever claims the handle.
// Knows: nothing of what it carries. Dropped anywhere on the way, it is reclaimed; only the claim's winner disarms it.
// Threads: owned by one thread at a time; reclaim() runs on whichever finds that nobody will own the payload.
#pragma once

#include <cstdint>
#include <memory>

namespace sluicebox::event_queue {

class Payload {
 public:
  Payload();
  virtual ~Payload();
  Payload(const Payload&) = delete;
  Payload& operator=(const Payload&) = delete;

  // The type's own rule for a result that nobody will own: destroy the box, remove the file. The destructor follows and
  // frees memory; it runs for owned payloads too and must undo nothing in the world.
  virtual void reclaim() noexcept {}

  // How many exist in this process: a baseline for leak tests.
  static std::int64_t live();
};

// An owned payload: its destructor frees memory and no more.
using OwnedPayload = std::unique_ptr<Payload>;

struct ReclaimRule {
  void operator()(Payload* payload) const noexcept {
    payload->reclaim();
    std::default_delete<Payload>()(payload);
  }
};

// A payload without an owner yet: its destructor applies the reclaim rule.
using UnownedPayload = std::unique_ptr<Payload, ReclaimRule>;

inline UnownedPayload arm(OwnedPayload payload) { return UnownedPayload(payload.release()); }
inline OwnedPayload disarm(UnownedPayload payload) { return OwnedPayload(payload.release()); }

}  // namespace sluicebox::event_queue
