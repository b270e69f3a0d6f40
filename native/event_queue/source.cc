#include "event_queue/source.h"

#include <cstdlib>

namespace sluicebox::event_queue {

Source::~Source() {
  if (admitted_) queue_->release(entry_);
}

Posted Source::post(std::uint32_t channel, Record record) {
  if (channel >= share_.channels) std::abort();
  record.slot = id_.slot;
  record.generation = id_.generation;
  const std::uint64_t bit = std::uint64_t{1} << channel;
  // Release: what the caller wrote before is seen by the reader, when it takes the record that is there already.
  // Acquire: pairs with the take that vacated the channel.
  if ((occupied_->fetch_or(bit, std::memory_order_acq_rel) & bit) != 0) return Posted::kCoalesced;
  if (queue_->post(entry_, channel, record)) return Posted::kQueued;
  occupied_->fetch_and(~bit, std::memory_order_relaxed);  // nobody reads a closed queue
  return Posted::kClosed;
}

bool Source::assign_bytes(std::uint64_t bytes) {
  // Relaxed: the number alone matters; buffers are handed over by other means.
  std::uint64_t assigned = assigned_.load(std::memory_order_relaxed);
  do {
    if (bytes > share_.bytes - assigned) return false;
  } while (!assigned_.compare_exchange_weak(assigned, assigned + bytes, std::memory_order_relaxed));
  return true;
}

}  // namespace sluicebox::event_queue
