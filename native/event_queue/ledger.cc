#include "event_queue/ledger.h"

#include <bit>

namespace sluicebox::event_queue {

std::optional<std::uint32_t> Ledger::reserve(const Share& share) {
  if (share.channels > limits_.max_events - slots_ || share.bytes > limits_.max_bytes - bytes_) return std::nullopt;
  const std::uint32_t entry = free_head_;
  Entry& at = entries_[entry];
  free_head_ = at.next_free;
  at.bytes = share.bytes;
  at.channels = share.channels;
  at.released = false;
  slots_ += share.channels;
  bytes_ += share.bytes;
  return entry;
}

void Ledger::release(std::uint32_t entry) {
  Entry& at = entries_[entry];
  at.released = true;
  // Relaxed: a source that is going posts no more; what it posted came here by the lock.
  const std::uint64_t occupied = at.occupied.load(std::memory_order_relaxed);
  slots_ -= at.channels - static_cast<std::uint32_t>(std::popcount(occupied));
  bytes_ -= at.bytes;
  if (occupied == 0) free(entry);
}

void Ledger::free(std::uint32_t entry) {
  entries_[entry].next_free = free_head_;
  free_head_ = entry;
}

}  // namespace sluicebox::event_queue
