// source.h: one producer's reservation in a queue, and the handle that its records are about.
// Knows: its queue. Does not know: what its records mean.
// Threads: any. Keeps the queue alive.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "event_queue/queue.h"
#include "event_queue/record.h"

namespace sluicebox::event_queue {

enum class Posted : std::uint8_t {
  kQueued,
  kCoalesced,  // the channel's earlier record was not taken yet: the reader will find the newer state with it
  kClosed,     // the queue is closed for good: nobody will ever read this
};

class Source {
 public:
  // From Queue::reserve().
  Source(std::shared_ptr<Queue> queue, const Share& share) : queue_(std::move(queue)), share_(share) {}
  // Gives the slots back; those that hold a record follow when it was taken. The handle stays as it is.
  ~Source();
  Source(const Source&) = delete;
  Source& operator=(const Source&) = delete;

  HandleId id() const { return id_; }
  Queue& queue() const { return *queue_; }

  // The record's handle is filled in here. A channel past the reservation is a defect of the caller, and aborts.
  Posted post(std::uint32_t channel, Record record);

  // Sets reserved bytes aside for one buffer of the source; false when fewer are left. They come back with the source.
  bool assign_bytes(std::uint64_t bytes);

 private:
  friend class Queue;
  const std::shared_ptr<Queue> queue_;
  const Share share_;
  // Set once, by reserve(), before anyone else sees the source.
  bool admitted_ = false;
  std::uint32_t entry_ = 0;
  std::atomic<std::uint64_t>* occupied_ = nullptr;  // the ledger's bits of this entry
  HandleId id_;

  std::atomic<std::uint64_t> assigned_{0};
};

}  // namespace sluicebox::event_queue
