// shared_chain_view.h: a chain as one disk, for several threads at once.
// Knows: chain views. Does not know: who reads.
// Threads: any, at once, while nobody writes to a layer.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "image/chain.h"

namespace sluicebox::image {

// A view remembers answers, and is one thread's for that: a call takes the one that was given back last, or a new one
// while all are in use.
class SharedChainView {
 public:
  // Borrows: the layers, nearest first, outlive it.
  SharedChainView(std::vector<Block*> layers, std::uint64_t size) : layers_(std::move(layers)), size_(size) {}

  std::uint64_t size() const { return size_; }

  Status read(std::uint64_t offset, MutableBytes out) EXCLUDES(mutex_) {
    ChainView view = take();
    Status outcome = view.read(offset, out);
    give_back(std::move(view));
    return outcome;
  }
  Result<ChainView::Extent> status(std::uint64_t offset, std::uint64_t length) EXCLUDES(mutex_) {
    ChainView view = take();
    Result<ChainView::Extent> extent = view.status(offset, length);
    give_back(std::move(view));
    return extent;
  }

 private:
  ChainView take() EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    if (idle_.empty()) return {layers_, size_};
    ChainView view = std::move(idle_.back());
    idle_.pop_back();
    return view;
  }
  void give_back(ChainView view) EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    idle_.push_back(std::move(view));
  }

  const std::vector<Block*> layers_;
  const std::uint64_t size_;
  Mutex mutex_;
  std::vector<ChainView> idle_ GUARDED_BY(mutex_);
};

}  // namespace sluicebox::image
