#include "event_queue/handle_table.h"

#include <new>

namespace sluicebox::event_queue {

Claim::~Claim() {
  if (table_ != nullptr) table_->finalize(id_);
}

OwnedPayload Claim::take_payload() { return table_->take_payload(id_); }

Result<HandleId> HandleTable::open(std::shared_ptr<InFlight> in_flight) {
  MutexLock lock(mutex_);
  if (free_head_ == kNoSlot && !grow()) {
    return Error(ErrorCode::kQueueFull, "every handle is in use").advise("dispose what is no longer needed");
  }
  const std::uint32_t index = free_head_;
  Slot& slot = (*chunks_[index / kChunkSlots])[index % kChunkSlots];
  free_head_ = slot.next_free;
  slot.in_flight = std::move(in_flight);
  ++opened_;
  // Relaxed read: words of free slots change under the lock only.
  const auto generation = static_cast<std::uint32_t>(slot.word.load(std::memory_order_relaxed) >> 2);
  // Release: a thread that claims by this id sees the slot as it is now.
  slot.word.store(word(generation, kOpen), std::memory_order_release);
  return HandleId{index, generation};
}

bool HandleTable::grow() {
  // Relaxed read: written under the lock only.
  const std::uint32_t first = slots_.load(std::memory_order_relaxed);
  if (first == kMaxSlots) return false;
  // Without a throw: the queue has counted the source already.
  auto chunk = std::unique_ptr<Chunk>(new (std::nothrow) Chunk);
  if (chunk == nullptr) return false;
  for (std::uint32_t i = 0; i + 1 < kChunkSlots; ++i) (*chunk)[i].next_free = first + i + 1;
  chunks_[first / kChunkSlots] = std::move(chunk);
  free_head_ = first;
  // Release: find() on any thread sees the chunk when it sees the count.
  slots_.store(first + kChunkSlots, std::memory_order_release);
  return true;
}

HandleTable::Slot* HandleTable::find(HandleId id) {
  // Acquire: pairs with grow(). The bound also makes ids that JavaScript invented harmless.
  if (id.slot >= slots_.load(std::memory_order_acquire)) return nullptr;
  return &(*chunks_[id.slot / kChunkSlots])[id.slot % kChunkSlots];
}

std::optional<Claim> HandleTable::claim(HandleId id) {
  Slot* slot = find(id);
  if (slot == nullptr) return std::nullopt;
  std::uint64_t expected = word(id.generation, kOpen);
  // The one exchange. The generation is part of the word, so a stale id cannot meet a newer tenant. Acquire: the winner
  // sees what was done before the handle was opened; release: whoever finds it claimed sees what the winner did before.
  if (!slot->word.compare_exchange_strong(expected, word(id.generation, kClaimed), std::memory_order_acq_rel,
                                          std::memory_order_relaxed)) {
    return std::nullopt;
  }
  claimed_.fetch_add(1, std::memory_order_relaxed);  // a counter
  return Claim(this, id);
}

void HandleTable::deposit(HandleId id, UnownedPayload payload) {
  Slot* slot = find(id);
  if (slot == nullptr) return;
  MutexLock lock(mutex_);
  // Acquire: as in claim(). A claim that comes between this check and the unlock is not missed: its winner takes the
  // lock to finalise, after this, and finds the payload.
  if (slot->word.load(std::memory_order_acquire) != word(id.generation, kOpen)) return;
  slot->payload.swap(payload);
  // `payload`, lost or displaced, is reclaimed with the parameter: after the lock was released.
}

std::shared_ptr<InFlight> HandleTable::in_flight(HandleId id) {
  Slot* slot = find(id);
  if (slot == nullptr) return nullptr;
  MutexLock lock(mutex_);
  if (slot->word.load(std::memory_order_acquire) != word(id.generation, kOpen)) return nullptr;  // as in claim()
  return slot->in_flight;
}

OwnedPayload HandleTable::take_payload(HandleId id) {
  Slot* slot = find(id);
  MutexLock lock(mutex_);
  return disarm(std::move(slot->payload));
}

void HandleTable::finalize(HandleId id) {
  Slot* slot = find(id);
  // Declared before the lock, so that both are let go after it.
  UnownedPayload leftover;
  std::shared_ptr<InFlight> in_flight;
  MutexLock lock(mutex_);
  leftover = std::move(slot->payload);
  in_flight = std::move(slot->in_flight);
  ++finalized_;
  if (id.generation == generation_limit_) {
    // Retired: stale ids go on finding a free slot of their own generation, which no claim matches. Release: as open().
    slot->word.store(word(id.generation, kFree), std::memory_order_release);
    return;
  }
  slot->word.store(word(id.generation + 1, kFree), std::memory_order_release);  // as in open()
  slot->next_free = free_head_;
  free_head_ = id.slot;
}

std::vector<HandleId> HandleTable::open_ids() {
  std::vector<HandleId> ids;
  MutexLock lock(mutex_);
  const std::uint32_t slots = slots_.load(std::memory_order_relaxed);  // written under the lock only
  for (std::uint32_t index = 0; index < slots; ++index) {
    // Relaxed: a claim that is not seen yet only makes the caller's own claim fail.
    const std::uint64_t current =
        (*chunks_[index / kChunkSlots])[index % kChunkSlots].word.load(std::memory_order_relaxed);
    if ((current & 3) == kOpen) ids.push_back({index, static_cast<std::uint32_t>(current >> 2)});
  }
  return ids;
}

HandleTable::Counters HandleTable::counters() const {
  MutexLock lock(mutex_);
  return {opened_ - finalized_, claimed_.load(std::memory_order_relaxed), finalized_};  // counters
}

}  // namespace sluicebox::event_queue
