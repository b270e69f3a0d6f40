#include "event_queue/queue.h"

#include <algorithm>
#include <string>

#include "event_queue/block_pool.h"
#include "event_queue/source.h"

namespace sluicebox::event_queue {

Result<std::shared_ptr<Queue>> Queue::create(const Options& options) {
  if (options.limits.max_events == 0 || options.limits.max_bytes == 0) {
    return Error(ErrorCode::kInvalidArgument, "a queue needs room for at least one event and one byte");
  }
  return std::make_shared<Queue>(Private(), options);
}

Queue::Queue(Private, const Options& options)
    : interleave_(options.interleave),
      handles_(options.generation_limit),
      blocks_(std::make_unique<BlockPool>()),
      ring_(options.limits.max_events),
      ledger_(options.limits) {}

Queue::~Queue() = default;

Result<std::shared_ptr<Source>> Queue::reserve(const Share& share, std::shared_ptr<InFlight> in_flight) {
  // Made first: once admitted, nothing can fail.
  auto source = std::make_shared<Source>(shared_from_this(), share);
  if (interleave_) interleave_(Seam::kBeforeAdmission);
  MutexLock lock(mutex_);
  const Limits& limits = ledger_.limits();
  if (share.channels == 0 || share.channels > std::min(kMaxChannels, limits.max_events) ||
      share.bytes > limits.max_bytes) {
    return Error(ErrorCode::kInvalidArgument, "a source of " + std::to_string(share.channels) + " events and " +
                                                  std::to_string(share.bytes) + " bytes never fits the queue");
  }
  if (!close_.accepts_sources()) return Error(ErrorCode::kClosed, "the runtime is closed");
  const auto entry = ledger_.reserve(share);
  if (!entry) {
    room_wanted_ = true;
    return Error(ErrorCode::kQueueFull, std::to_string(ledger_.slots()) + " of " + std::to_string(limits.max_events) +
                                            " events and " + std::to_string(ledger_.bytes()) + " of " +
                                            std::to_string(limits.max_bytes) + " bytes are reserved")
        .advise("wait for an operation to end");
  }
  // Still under the lock: close finds every handle of every source that it did not refuse.
  auto id = handles_.open(std::move(in_flight));
  if (!id) {
    ledger_.release(*entry);
    room_wanted_ = true;
    return std::move(id).error();
  }
  source->entry_ = *entry;
  source->occupied_ = &ledger_.occupied(*entry);
  source->id_ = *id;
  source->admitted_ = true;
  return source;
}

bool Queue::post(std::uint32_t entry, std::uint32_t channel, const Record& record) {
  // Acquire: what the closing thread did is seen. A post that just misses it leaves a record that nobody takes, for a
  // handle that finish_close() claims: nothing waits for it.
  if (closed_.load(std::memory_order_acquire)) return false;
  const std::size_t depth = ring_.push(record, {entry, channel});
  std::size_t high = high_water_.load(std::memory_order_relaxed);  // a gauge
  while (depth > high && !high_water_.compare_exchange_weak(high, depth, std::memory_order_relaxed)) {
  }
  if (wake()) ring();
  return true;
}

void Queue::release(std::uint32_t entry) {
  bool ring_now = false;
  {
    MutexLock lock(mutex_);
    ledger_.release(entry);
    // The drain may sleep, and nothing need be posted any more: it learns of room and of the end by the bell.
    const bool wanted = std::exchange(room_wanted_, false);
    if (drained_now() || wanted) ring_now = wake();
  }
  if (ring_now) ring();
}

std::size_t Queue::take(std::span<Record> out) {
  if (out.empty()) return 0;
  MutexLock lock(mutex_);
  if (!close_.accepts_posts()) {
    discard();
    return 0;
  }
  std::size_t count = pop(out);
  if (count > 0) {
    wake_.store(Wake::kDraining);
    return count;
  }
  // First idle, then a second look. A producer pushes first and looks at the state then; both in sequentially
  // consistent order, so that a record which came in between is seen by one side at least, and rung for by at most one.
  if (interleave_) interleave_(Seam::kBeforeIdle);
  wake_.store(Wake::kIdle);
  Wake expected = Wake::kIdle;
  if (!ring_.empty() && wake_.compare_exchange_strong(expected, Wake::kDraining)) return pop(out);
  drained_now();
  return 0;
}

std::size_t Queue::pop(std::span<Record> out) {
  std::size_t done = 0;
  std::size_t count = 0;
  do {
    const auto part = out.subspan(done, std::min(out.size() - done, origins_.size()));
    count = ring_.pop(part, std::span(origins_).first(part.size()));
    for (std::size_t i = 0; i < count; ++i) ledger_.vacate(origins_[i].entry, origins_[i].channel);
    done += count;
  } while (count == origins_.size() && done < out.size());
  return done;
}

void Queue::discard() {
  std::array<Record, kBatch> unread;
  while (const std::size_t count = pop(unread)) discarded_ += count;
}

bool Queue::wake() {
  // The load comes first, because nearly always it is the answer and leaves the line shared. Its order: see take().
  Wake expected = Wake::kIdle;
  if (wake_.load() != Wake::kIdle || !wake_.compare_exchange_strong(expected, Wake::kRung)) return false;
  wakeups_.fetch_add(1, std::memory_order_relaxed);  // a counter
  return true;
}

void Queue::ring() {
  MutexLock lock(bell_mutex_);
  if (bell_ != nullptr) bell_->ring();
}

void Queue::attach_bell(Bell* bell) {
  {
    MutexLock lock(bell_mutex_);
    bell_ = bell;
  }
  if (wake_.load() == Wake::kRung) ring();
}

void Queue::detach_bell() {
  MutexLock lock(bell_mutex_);
  bell_ = nullptr;
}

std::optional<Claim> Queue::abort(HandleId id) {
  // A committed operation reports its success: its claim is left to the completion.
  if (const auto in_flight = handles_.in_flight(id); in_flight != nullptr && !in_flight->cancel.cancel()) {
    return std::nullopt;
  }
  return handles_.claim(id);
}

std::optional<ProgressReport> Queue::take_progress(HandleId id) {
  const auto in_flight = handles_.in_flight(id);
  if (in_flight == nullptr) return std::nullopt;
  return in_flight->progress.take();
}

bool Queue::begin_close() {
  MutexLock lock(mutex_);
  const bool began = close_.refuse();
  if (began) moved_.notify_all();
  return began;
}

void Queue::settle() {
  begin_close();
  for (const HandleId id : handles_.open_ids()) {
    if (const auto in_flight = handles_.in_flight(id)) in_flight->cancel.cancel();
  }
  bool ring_now = false;
  {
    MutexLock lock(mutex_);
    if (close_.settle()) moved_.notify_all();
    if (drained_now()) ring_now = wake();
  }
  if (ring_now) ring();
}

bool Queue::drained_now() {
  // While the drain is dispatching a batch, what it holds is not done with.
  if (ledger_.slots() != 0 || wake_.load() == Wake::kDraining || !close_.drain()) return false;
  moved_.notify_all();
  return true;
}

void Queue::finish_close() {
  {
    MutexLock lock(mutex_);
    if (!close_.finish()) return;
    closed_.store(true, std::memory_order_release);  // pairs with post()
    discard();
    moved_.notify_all();
  }
  // A claim that nobody takes the payload of reclaims it.
  handles_.claim_all([](Claim) {});
}

CloseState Queue::close_state() const {
  MutexLock lock(mutex_);
  return close_.state();
}

bool Queue::wait_for(CloseState state, std::chrono::steady_clock::time_point deadline) {
  MutexLock lock(mutex_);
  while (close_.state() < state) {
    if (!moved_.wait_until(mutex_, deadline)) return close_.state() >= state;
  }
  return true;
}

std::uint32_t Queue::outstanding() const {
  MutexLock lock(mutex_);
  return ledger_.slots();
}

Stats Queue::stats() const {
  MutexLock lock(mutex_);
  Stats stats;
  stats.depth = ring_.size();
  stats.high_water = high_water_.load(std::memory_order_relaxed);  // gauges and counters from here on
  stats.events = ring_.pushed();
  stats.discarded = discarded_;
  stats.wakeups = wakeups_.load(std::memory_order_relaxed);
  stats.capacity = ledger_.limits().max_events;
  stats.slots = ledger_.slots();
  // Writers count up before the reader of their bytes counts down.
  stats.bytes = static_cast<std::uint64_t>(std::max<std::int64_t>(0, bytes_held_.load(std::memory_order_relaxed)));
  stats.lanes_open = static_cast<std::uint64_t>(lanes_open_.load(std::memory_order_relaxed));
  stats.lanes_stalled = static_cast<std::uint64_t>(lanes_stalled_.load(std::memory_order_relaxed));
  stats.bytes_reserved = ledger_.bytes();
  stats.bytes_capacity = ledger_.limits().max_bytes;
  return stats;
}

}  // namespace sluicebox::event_queue
