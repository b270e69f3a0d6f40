#include "event_queue/payload.h"

#include <atomic>

namespace sluicebox::event_queue {

namespace {

// A counter: relaxed, because nothing is published through it.
std::atomic<std::int64_t> live_payloads{0};

}  // namespace

Payload::Payload() { live_payloads.fetch_add(1, std::memory_order_relaxed); }
Payload::~Payload() { live_payloads.fetch_sub(1, std::memory_order_relaxed); }
std::int64_t Payload::live() { return live_payloads.load(std::memory_order_relaxed); }

}  // namespace sluicebox::event_queue
