// block_pool.h: 64 KiB blocks for lanes, a few of them kept for the next lane that wants one.
// Knows: memory. Does not know: lanes.
// Threads: any.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <vector>

#include "base/mutex.h"

namespace sluicebox::event_queue {

struct Block {
  static constexpr std::size_t kSize = std::size_t{64} * 1024;
  std::unique_ptr<Block> next;
  std::size_t begin = 0;  // first byte not read
  std::size_t end = 0;    // first byte not written
  std::array<std::byte, kSize> bytes;
};

class BlockPool {
 public:
  // Idle memory is bounded by this many blocks a queue, whatever the number of its lanes.
  static constexpr std::size_t kSpare = 32;

  ~BlockPool();

  std::unique_ptr<Block> get() EXCLUDES(mutex_);
  // The whole chain that begins with `block`.
  void put(std::unique_ptr<Block> block) EXCLUDES(mutex_);
  std::size_t spare() const EXCLUDES(mutex_);

 private:
  mutable Mutex mutex_;
  std::unique_ptr<Block> spare_ GUARDED_BY(mutex_);
  std::size_t count_ GUARDED_BY(mutex_) = 0;
};

// Link by link: the destructor of a long chain must not recurse.
void free_chain(std::unique_ptr<Block> block);

}  // namespace sluicebox::event_queue
