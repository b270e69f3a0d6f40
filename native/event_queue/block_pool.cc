#include "event_queue/block_pool.h"

#include <utility>

namespace sluicebox::event_queue {

BlockPool::~BlockPool() { free_chain(std::move(spare_)); }

std::unique_ptr<Block> BlockPool::get() {
  {
    MutexLock lock(mutex_);
    if (spare_ != nullptr) {
      auto block = std::move(spare_);
      spare_ = std::move(block->next);
      --count_;
      block->begin = block->end = 0;
      return block;
    }
  }
  // Not make_unique: it would write 64 KiB of zeroes that the lane writes over.
  return std::unique_ptr<Block>(new Block);
}

void BlockPool::put(std::unique_ptr<Block> block) {
  {
    MutexLock lock(mutex_);
    while (block != nullptr && count_ < kSpare) {
      auto rest = std::move(block->next);
      block->next = std::move(spare_);
      spare_ = std::move(block);
      block = std::move(rest);
      ++count_;
    }
  }
  free_chain(std::move(block));
}

std::size_t BlockPool::spare() const {
  MutexLock lock(mutex_);
  return count_;
}

void free_chain(std::unique_ptr<Block> block) {
  while (block != nullptr) block = std::move(block->next);
}

}  // namespace sluicebox::event_queue
