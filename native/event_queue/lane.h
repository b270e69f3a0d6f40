// lane.h: the byte-bounded buffer between one stream's producer and its reader.
// Knows: bytes, its source and the one record it may have outstanding. Does not know: pipes, boxes, JavaScript.
// Threads: write() and finish() from one producer; read() from the drain's thread; discard() from any.
//
// Invariants:
// 1. It never holds more than its mark.
// 2. One record says "readable", however many writes follow; the write (or the end) after a read that left nothing says
//    it again. A reader that leaves bytes comes back by itself.
// 3. A write that is cut short is a stall; the read that next makes room calls on_room, once a stall.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "base/bytes.h"
#include "base/mutex.h"
#include "base/result.h"
#include "event_queue/block_pool.h"
#include "event_queue/source.h"

namespace sluicebox::event_queue {

class Lane {
  struct Private {
    explicit Private() = default;
  };

 public:
  struct Options {
    std::uint32_t channel = 0;  // of the source, for the lane's record
    std::uint8_t number = 0;    // Record::flags
    std::uint64_t high_water_mark = 1 << 20;
    // Whether the mark is part of what the source reserved of the queue's bytes; else the mark alone bounds it.
    bool reserved = true;
    // From the thread of read() or discard(), with no lock held; it must not block.
    std::function<void()> on_room;
  };
  struct Read {
    std::size_t bytes = 0;
    bool more = false;   // bytes are left: come back
    bool ended = false;  // the producer has finished and everything was read
  };
  struct Chunk {
    std::unique_ptr<std::byte[]> data;
    Read read;
  };

  // kInvalidArgument when the mark is 0 or exceeds what is left of the source's reserved bytes.
  static Result<std::shared_ptr<Lane>> open(std::shared_ptr<Source> source, Options options);
  Lane(Private, std::shared_ptr<Source> source, Options options);
  ~Lane();
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  // --- the producer ---
  // How many bytes were accepted; fewer than given means that the lane is full, and on_room follows. A lane that was
  // discarded accepts everything and keeps nothing.
  std::size_t write(Bytes bytes) EXCLUDES(mutex_);
  // The same without a copy: room for 1 to `limit` bytes, to be written in place and told by commit() before anything
  // else is written. Empty: full, and on_room follows. Not for a lane that was discarded or finished.
  MutableBytes space(std::size_t limit) EXCLUDES(mutex_);
  void commit(std::size_t count) EXCLUDES(mutex_);
  std::size_t free_bytes() const EXCLUDES(mutex_);
  void finish() EXCLUDES(mutex_);

  // --- the reader ---
  Read read(MutableBytes out) EXCLUDES(mutex_);
  // Everything held, up to `limit`, in memory that the caller owns and no producer has seen.
  Chunk read_available(std::size_t limit);
  // Nobody will read: what is held and what comes is thrown away, and the reservation is let go.
  void discard() EXCLUDES(mutex_);

  std::size_t held() const EXCLUDES(mutex_);

 private:
  std::size_t append(Bytes bytes) REQUIRES(mutex_);
  Block* open_block() REQUIRES(mutex_);
  void stall() REQUIRES(mutex_);
  std::size_t room() const REQUIRES(mutex_) { return static_cast<std::size_t>(options_.high_water_mark) - held_; }
  std::shared_ptr<Source> tell() REQUIRES(mutex_);
  bool unstall() REQUIRES(mutex_);
  void post(const std::shared_ptr<Source>& source);
  std::unique_ptr<Block> detach(std::size_t count, MutableBytes out) REQUIRES(mutex_);

  const Options options_;
  const std::shared_ptr<Queue> queue_;

  mutable Mutex mutex_;
  std::shared_ptr<Source> source_ GUARDED_BY(mutex_);  // let go when the end was read
  std::unique_ptr<Block> head_ GUARDED_BY(mutex_);
  Block* tail_ GUARDED_BY(mutex_) = nullptr;
  std::size_t held_ GUARDED_BY(mutex_) = 0;
  bool told_ GUARDED_BY(mutex_) = false;  // the reader knows of bytes that it has not read
  bool stalled_ GUARDED_BY(mutex_) = false;
  bool finished_ GUARDED_BY(mutex_) = false;
  bool discarded_ GUARDED_BY(mutex_) = false;
  // The producer writes into the last block: a reader leaves it in the chain.
  bool writing_ GUARDED_BY(mutex_) = false;
  std::unique_ptr<Block> spare_ GUARDED_BY(mutex_);  // discarded while it was
};

}  // namespace sluicebox::event_queue
