// handle_table.h: every operation, execution and box in flight, and the one claim that each of them can be settled by.
// Knows: payloads, what an operation in flight shares. Does not know: queues, or what is settled.
// Threads: any. The winner's Claim belongs to one thread at a time and dies before the table.
//
// Invariants:
// 1. claim(id) is one compare-and-swap on (generation, state): of all callers, ever, one wins.
// 2. Only the winner's Claim frees the slot; until then no other handle can stand there.
// 3. A generation is used once. A slot that has used its last one is retired.
// 4. A payload leaves the slot once: to the winner, disarmed, or to its reclaim rule.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <vector>

#include "base/mutex.h"
#include "base/result.h"
#include "event_queue/in_flight.h"
#include "event_queue/payload.h"
#include "event_queue/record.h"

namespace sluicebox::event_queue {

class HandleTable;

// The right to settle one handle. Its end finalises the handle: the slot is free for the next tenant, and a payload
// that was not taken, or that arrives later, is reclaimed.
class Claim {
 public:
  Claim(Claim&& other) noexcept : table_(std::exchange(other.table_, nullptr)), id_(other.id_) {}
  Claim& operator=(Claim&&) = delete;
  ~Claim();

  HandleId id() const { return id_; }
  // What was deposited so far, disarmed; null when nothing was.
  OwnedPayload take_payload();

 private:
  friend class HandleTable;
  Claim(HandleTable* table, HandleId id) : table_(table), id_(id) {}
  HandleTable* table_;
  HandleId id_;
};

class HandleTable {
 public:
  static constexpr std::uint32_t kMaxSlots = 65536;

  struct Counters {
    std::uint64_t live = 0;       // opened and not finalised
    std::uint64_t claimed = 0;    // in all
    std::uint64_t finalized = 0;  // in all
  };

  // A small `generation_limit` lets a test use a slot up.
  explicit HandleTable(std::uint32_t generation_limit = std::numeric_limits<std::uint32_t>::max())
      : generation_limit_(generation_limit) {}
  // No Claim and no other caller may be left. Payloads that are still there are reclaimed.
  ~HandleTable() = default;
  HandleTable(const HandleTable&) = delete;
  HandleTable& operator=(const HandleTable&) = delete;

  // `in_flight` is null for what reports no progress and is not cancelled by token. kQueueFull when every slot is taken
  // or retired.
  Result<HandleId> open(std::shared_ptr<InFlight> in_flight = nullptr) EXCLUDES(mutex_);
  std::optional<Claim> claim(HandleId id);
  // Claims every open handle, one after the other, and hands each claim over; no lock is held while `visit` runs.
  template <typename Visitor>
  std::size_t claim_all(Visitor visit) EXCLUDES(mutex_) {
    std::size_t count = 0;
    for (const HandleId id : open_ids()) {
      if (auto won = claim(id)) {
        visit(std::move(*won));
        ++count;
      }
    }
    return count;
  }

  // Leaves `payload` for the winner. When the handle is claimed already the payload is reclaimed here and now.
  void deposit(HandleId id, UnownedPayload payload) EXCLUDES(mutex_);
  // What the operation behind an open handle shares; null for stale and claimed handles.
  std::shared_ptr<InFlight> in_flight(HandleId id) EXCLUDES(mutex_);
  std::vector<HandleId> open_ids() EXCLUDES(mutex_);
  Counters counters() const EXCLUDES(mutex_);

 private:
  friend class Claim;

  enum State : std::uint64_t { kFree = 0, kOpen = 1, kClaimed = 2 };
  static constexpr std::uint64_t word(std::uint32_t generation, State state) {
    return (std::uint64_t{generation} << 2) | state;
  }
  static constexpr std::uint32_t kChunkSlots = 256;
  static constexpr std::uint32_t kNoSlot = std::numeric_limits<std::uint32_t>::max();

  struct Slot {
    // Which tenant, and how far it is. Moves to kClaimed by claim() alone, without the lock; all other moves and all
    // other members are guarded by mutex_.
    std::atomic<std::uint64_t> word{HandleTable::word(1, kFree)};
    UnownedPayload payload;
    std::shared_ptr<InFlight> in_flight;
    std::uint32_t next_free = kNoSlot;
  };
  using Chunk = std::array<Slot, kChunkSlots>;

  Slot* find(HandleId id);
  bool grow() REQUIRES(mutex_);
  OwnedPayload take_payload(HandleId id) EXCLUDES(mutex_);
  void finalize(HandleId id) EXCLUDES(mutex_);

  const std::uint32_t generation_limit_;
  mutable Mutex mutex_;
  // Chunks are added under the lock and never move or go, so that claim() needs none.
  std::array<std::unique_ptr<Chunk>, kMaxSlots / kChunkSlots> chunks_;
  std::atomic<std::uint32_t> slots_{0};
  std::uint32_t free_head_ GUARDED_BY(mutex_) = kNoSlot;
  std::uint64_t opened_ GUARDED_BY(mutex_) = 0;
  std::uint64_t finalized_ GUARDED_BY(mutex_) = 0;
  std::atomic<std::uint64_t> claimed_{0};
};

}  // namespace sluicebox::event_queue
