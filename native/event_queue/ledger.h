// ledger.h: who has reserved what of a queue: the one place where capacity is enforced.
// Knows: counts. Does not know: records, handles, threads.
// Threads: none of its own; the queue's lock guards it. The bits of occupied() alone are shared.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>

namespace sluicebox::event_queue {

struct Limits {
  std::uint32_t max_events = 4096;
  std::uint64_t max_bytes = 64ULL << 20;
};

// A source's share. A channel is one reserved slot of the queue: it holds at most one record at a time, so what was
// reserved always fits.
struct Share {
  std::uint32_t channels = 1;  // 1 to kMaxChannels
  std::uint64_t bytes = 0;
};
inline constexpr std::uint32_t kMaxChannels = 64;

class Ledger {
 public:
  explicit Ledger(Limits limits) : limits_(limits), entries_(std::make_unique<Entry[]>(limits.max_events)) {
    for (std::uint32_t i = 0; i < limits.max_events; ++i) entries_[i].next_free = i + 1;
  }

  // The entry for a new source; nothing when the share does not fit.
  std::optional<std::uint32_t> reserve(const Share& share);
  // The source is gone: what holds no record comes back now, the rest as its records leave the queue.
  void release(std::uint32_t entry);

  // One bit a channel that holds a record. Stays valid as long as the ledger: sources occupy their channels without the
  // lock, so that saying again what was said already costs one atomic instruction and disturbs nobody.
  std::atomic<std::uint64_t>& occupied(std::uint32_t entry) { return entries_[entry].occupied; }
  // The channel's record left the queue.
  void vacate(std::uint32_t entry, std::uint32_t channel) {
    Entry& at = entries_[entry];
    const std::uint64_t bit = std::uint64_t{1} << channel;
    // Acquire: the reader of the record sees what was written before a post that found the channel occupied. Release:
    // the next post that occupies it comes after.
    const std::uint64_t before = at.occupied.fetch_and(~bit, std::memory_order_acq_rel);
    if (at.released) {
      --slots_;
      if (before == bit) free(entry);
    }
  }

  std::uint32_t slots() const { return slots_; }
  std::uint64_t bytes() const { return bytes_; }
  const Limits& limits() const { return limits_; }

 private:
  struct Entry {
    std::atomic<std::uint64_t> occupied{0};
    std::uint64_t bytes = 0;
    std::uint32_t channels = 0;
    std::uint32_t next_free = 0;
    bool released = false;
  };
  void free(std::uint32_t entry);

  const Limits limits_;
  // One entry a slot is enough: every entry in use holds at least one slot.
  const std::unique_ptr<Entry[]> entries_;
  std::uint32_t free_head_ = 0;
  std::uint32_t slots_ = 0;
  std::uint64_t bytes_ = 0;
};

}  // namespace sluicebox::event_queue
