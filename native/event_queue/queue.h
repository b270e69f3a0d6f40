// queue.h: the bounded queue between native workers and one drain: sources are admitted, records posted and taken.
// Knows: records, handles, close. Does not know: operations, lanes, images, boxes, JavaScript.
// Threads: any, but take() from one thread at a time (the drain's).
//
// Invariants:
// 1. Capacity is checked in reserve() alone. A post fits by construction: it takes no lock, and never waits, spins or
// fails for room.
// 2. The bell rings on the first post after the drain found the queue empty, and not again until it finds it so again:
//    idle -post-> rung -take of some-> draining -take of none-> idle. "Empty" and "idle" are one step.
// 3. "Not closing" and "registered" are one step: a source is refused, or seen by everything that close does.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <span>

#include "base/mutex.h"
#include "base/result.h"
#include "event_queue/bell.h"
#include "event_queue/close.h"
#include "event_queue/handle_table.h"
#include "event_queue/ledger.h"
#include "event_queue/record.h"
#include "event_queue/ring.h"

namespace sluicebox::event_queue {

class BlockPool;
class Source;

struct Stats {
  std::size_t depth = 0;        // records queued
  std::size_t high_water = 0;   // the most there ever were
  std::uint64_t events = 0;     // posted, in all
  std::uint64_t discarded = 0;  // still queued when the queue was closed for good
  std::uint64_t dropped = 0;    // always 0: nothing is lost while the queue is open
  std::uint64_t wakeups = 0;    // rings, in all
  std::uint32_t capacity = 0;   // of events
  std::uint32_t slots = 0;      // of them reserved
  std::uint64_t bytes = 0;      // held in lanes
  std::uint64_t lanes_open = 0;
  std::uint64_t lanes_stalled = 0;  // of them full, with a producer that waits
  std::uint64_t bytes_reserved = 0;
  std::uint64_t bytes_capacity = 0;
};

class Queue : public std::enable_shared_from_this<Queue> {
  struct Private {
    explicit Private() = default;
  };

 public:
  // Where another thread may come between two steps that must count as one.
  enum class Seam : std::uint8_t { kBeforeAdmission, kBeforeIdle };
  struct Options {
    Limits limits;
    // For tests: a small limit uses slots up; what another thread might do at a seam is done there and then.
    std::uint32_t generation_limit = std::numeric_limits<std::uint32_t>::max();
    std::function<void(Seam)> interleave = nullptr;
  };
  // kInvalidArgument when a limit is 0.
  static Result<std::shared_ptr<Queue>> create(const Options& options);
  Queue(Private, const Options& options);
  ~Queue();
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  // --- producers ---
  // Admits a source and opens its handle. kQueueFull when the share does not fit now (the bell rings when a slot was
  // given back: try again then), kClosed once close has begun, kInvalidArgument when it never fits.
  Result<std::shared_ptr<Source>> reserve(const Share& share, std::shared_ptr<InFlight> in_flight = nullptr)
      EXCLUDES(mutex_, bell_mutex_);

  // --- the drain ---
  // Moves up to out.size() of the oldest records to `out`. After a take that gave something the drain must take again,
  // from a later turn of its loop; the bell stays silent until a take gave nothing.
  std::size_t take(std::span<Record> out) EXCLUDES(mutex_);
  // Rings at once when something waits already.
  void attach_bell(Bell* bell) EXCLUDES(mutex_, bell_mutex_);
  // After the return no ring is running and none comes. For the bell's finaliser.
  void detach_bell() EXCLUDES(bell_mutex_);

  // --- handles ---
  HandleTable& handles() { return handles_; }
  std::optional<Claim> claim(HandleId id) { return handles_.claim(id); }
  // Asks the operation to stop, and claims it unless its effect stands already: then nothing, and its completion comes.
  std::optional<Claim> abort(HandleId id);
  std::optional<ProgressReport> take_progress(HandleId id);

  // --- close ---
  // Idempotent; true for the call that began it. From here on reserve() gives kClosed.
  bool begin_close() EXCLUDES(mutex_);
  // Asks every operation in flight to stop. The queue is drained when the last reserved slot was given back and a take
  // gave nothing; the bell rings for that too, if it is silent.
  void settle() EXCLUDES(mutex_, bell_mutex_);
  // From any state: discards what is queued, claims what is open, and hands all payloads, also later ones, to their
  // reclaim rules. Idempotent.
  void finish_close() EXCLUDES(mutex_);
  CloseState close_state() const EXCLUDES(mutex_);
  bool is_drained() const { return close_state() >= CloseState::kDrained; }
  // Blocks until `state` or a later one is reached. Not for the drain's thread, which others wait for.
  bool wait_for(CloseState state, std::chrono::steady_clock::time_point deadline) EXCLUDES(mutex_);
  // Slots reserved, or holding a record.
  std::uint32_t outstanding() const EXCLUDES(mutex_);

  Stats stats() const EXCLUDES(mutex_);

 private:
  friend class Lane;
  friend class Source;
  static constexpr std::size_t kBatch = 256;
  enum class Wake : std::uint8_t { kIdle, kRung, kDraining };

  // The channel is occupied by the caller. False when the queue is closed for good.
  bool post(std::uint32_t entry, std::uint32_t channel, const Record& record) EXCLUDES(bell_mutex_);
  void release(std::uint32_t entry) EXCLUDES(mutex_, bell_mutex_);
  std::size_t pop(std::span<Record> out) REQUIRES(mutex_);
  void discard() REQUIRES(mutex_);
  // True when the caller has to ring: it moved the state from idle to rung.
  bool wake();
  bool drained_now() REQUIRES(mutex_);
  void ring() EXCLUDES(mutex_, bell_mutex_);
  // Relaxed: a gauge; nothing is published through it.
  void count_bytes(std::int64_t change) { bytes_held_.fetch_add(change, std::memory_order_relaxed); }
  void count_lanes(int open, int stalled) {
    lanes_open_.fetch_add(open, std::memory_order_relaxed);
    lanes_stalled_.fetch_add(stalled, std::memory_order_relaxed);
  }
  BlockPool& blocks() { return *blocks_; }

  const std::function<void(Seam)> interleave_;
  HandleTable handles_;
  const std::unique_ptr<BlockPool> blocks_;
  std::atomic<std::int64_t> bytes_held_{0};
  std::atomic<std::int64_t> lanes_open_{0};
  std::atomic<std::int64_t> lanes_stalled_{0};

  // The producers' way, without a lock.
  Ring ring_;
  std::atomic<Wake> wake_{Wake::kIdle};  // only the drain moves it away from rung and draining
  std::atomic<bool> closed_{false};      // close_ has finished
  std::atomic<std::size_t> high_water_{0};
  std::atomic<std::uint64_t> wakeups_{0};

  // The bell's own lock, never taken with mutex_ held: ringing may take a while, and taking the bell away waits for
  // it.
  mutable Mutex bell_mutex_;
  Bell* bell_ GUARDED_BY(bell_mutex_) = nullptr;

  // Admission, the drain and close.
  mutable Mutex mutex_;
  Condition moved_;  // the close machine
  Ledger ledger_ GUARDED_BY(mutex_);
  std::array<Origin, kBatch> origins_ GUARDED_BY(mutex_);  // of the batch that is being taken
  CloseMachine close_ GUARDED_BY(mutex_);
  bool room_wanted_ GUARDED_BY(mutex_) = false;  // a source was refused, and nothing was given back since
  std::uint64_t discarded_ GUARDED_BY(mutex_) = 0;
};

}  // namespace sluicebox::event_queue
