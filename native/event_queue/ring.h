// ring.h: the fixed array behind a queue: records and, beside them, the channel that each one holds.
// Knows: records. Does not know: who posts, who takes, or what full means: its user never holds more than the capacity.
// Threads: none of its own; the queue's lock guards it.
#pragma once

#include <algorithm>
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

class Ring {
 public:
  explicit Ring(std::size_t capacity)
      : capacity_(capacity),
        records_(std::make_unique<Record[]>(capacity)),
        origins_(std::make_unique<Origin[]>(capacity)) {}

  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

  void push(const Record& record, Origin origin) {
    const std::size_t at = wrap(head_ + size_);
    records_[at] = record;
    origins_[at] = origin;
    ++size_;
  }

  // Of the i-th oldest record.
  Origin origin(std::size_t i) const { return origins_[wrap(head_ + i)]; }

  // Moves the out.size() oldest records, no more than there are, to `out`.
  void pop(std::span<Record> out) {
    const std::size_t straight = std::min(out.size(), capacity_ - head_);
    std::copy_n(&records_[head_], straight, out.begin());
    std::copy_n(&records_[0], out.size() - straight, out.begin() + static_cast<std::ptrdiff_t>(straight));
    head_ = wrap(head_ + out.size());
    size_ -= out.size();
  }

  void clear() { size_ = 0; }

 private:
  std::size_t wrap(std::size_t index) const { return index < capacity_ ? index : index - capacity_; }

  const std::size_t capacity_;
  const std::unique_ptr<Record[]> records_;
  const std::unique_ptr<Origin[]> origins_;
  std::size_t head_ = 0;
  std::size_t size_ = 0;
};

}  // namespace sluicebox::event_queue
