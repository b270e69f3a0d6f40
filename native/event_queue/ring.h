// ring.h: the fixed array of queued records: many producers push without waiting, one consumer pops.
// Knows: records. Does not know: who posts, or what full means: a push is made only by whoever holds a reserved slot.
// Threads: push() from any thread, wait-free; all else from one consumer at a time.
//
// Why a push always finds its place free: it was preceded by the taking of a channel, there are no more channels than
// places, and a channel is given back only after its record was popped. That order (pop, give back, take, push) is also
// the chain of releases and acquires by which the producer may overwrite what the consumer has read.
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "event_queue/record.h"

namespace sluicebox::event_queue {

// Where a record came from: the source's entry in the ledger, and which of its channels.
struct Origin {
  std::uint32_t entry = 0;
  std::uint32_t channel = 0;
};

// NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding): producers and the consumer write to lines of their own
class Ring {
 public:
  explicit Ring(std::size_t capacity)
      : mask_(std::bit_ceil(capacity) - 1), places_(std::make_unique<Place[]>(std::bit_ceil(capacity))) {}

  // How many records are queued, this one included; 0 when it was popped meanwhile.
  std::size_t push(const Record& record, Origin origin) {
    // Acquire and release: joins the producers before us to the chain described above.
    const std::uint64_t ticket = tail_.fetch_add(1, std::memory_order_acq_rel);
    Place& place = places_[ticket & mask_];
    place.record = record;
    place.origin = origin;
    // Sequentially consistent, as the consumer's look in empty(): of "record, then is the bell silent?" here and "bell
    // silent, then is there a record?" there, at least one sees the other.
    place.ready.store(ticket + 1, std::memory_order_seq_cst);
    // Relaxed: the chain makes the head at most a capacity old. It may be past us: the consumer is quick.
    const std::uint64_t head = head_.load(std::memory_order_relaxed);
    return head > ticket ? 0 : static_cast<std::size_t>(ticket + 1 - head);
  }

  // No record can be popped. One whose push is under way does not count; its producer will see to the bell.
  bool empty() const {
    const std::uint64_t head = head_.load(std::memory_order_relaxed);  // the consumer's own
    return places_[head & mask_].ready.load(std::memory_order_seq_cst) != head + 1;
  }

  // Moves up to out.size() of the oldest records to `out`, and their origins to `origins`, which is as long.
  std::size_t pop(std::span<Record> out, std::span<Origin> origins) {
    const std::uint64_t head = head_.load(std::memory_order_relaxed);  // the consumer's own
    std::size_t count = 0;
    while (count < out.size()) {
      const Place& place = places_[(head + count) & mask_];
      // Acquire: pairs with push(), the record is whole.
      if (place.ready.load(std::memory_order_acquire) != head + count + 1) break;
      out[count] = place.record;
      origins[count] = place.origin;
      ++count;
    }
    head_.store(head + count, std::memory_order_release);  // before the channels are given back
    return count;
  }

  // Gauges, exact when nobody pushes.
  std::uint64_t pushed() const { return tail_.load(std::memory_order_relaxed); }
  std::size_t size() const {
    const std::uint64_t head = head_.load(std::memory_order_acquire);  // first: the tail only grows
    return static_cast<std::size_t>(tail_.load(std::memory_order_relaxed) - head);
  }

 private:
  static constexpr std::size_t kLine = 64;
  struct Place {
    std::atomic<std::uint64_t> ready{0};  // ticket + 1 of the record that is whole
    Record record;
    Origin origin;
  };

  const std::size_t mask_;
  const std::unique_ptr<Place[]> places_;
  alignas(kLine) std::atomic<std::uint64_t> tail_{0};
  alignas(kLine) std::atomic<std::uint64_t> head_{0};
};

}  // namespace sluicebox::event_queue
