// metadata_budget.h: how much memory the tables of all layers that one operation opens may take together.
// Knows: numbers. Does not know: layers, formats, what a table says.
// Threads: a budget from any thread; a share belongs to one owner.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <utility>

#include "base/result.h"

namespace sluicebox::image {

// Enough for the largest tables that one image may have; of ordinary images, for those of a chain of any length.
inline constexpr std::size_t kMetadataBytes = 192u << 20;

class MetadataBudget {
 public:
  explicit MetadataBudget(std::size_t limit = kMetadataBytes) : limit_(limit) {}

  bool try_take(std::size_t bytes) {
    std::size_t taken = taken_.load();
    do {
      if (bytes > limit_ || taken > limit_ - bytes) return false;
    } while (!taken_.compare_exchange_weak(taken, taken + bytes));
    return true;
  }
  // For what cannot be done without, and is bounded elsewhere: from here on everybody else finds less.
  void take_anyway(std::size_t bytes) { taken_ += bytes; }
  void give_back(std::size_t bytes) { taken_ -= bytes; }

  std::size_t limit() const { return limit_; }
  std::size_t taken() const { return taken_; }

 private:
  const std::size_t limit_;
  // A counter: it orders no other memory, and default order costs nothing beside the reading of a table.
  std::atomic<std::size_t> taken_{0};
};

// What one layer holds of the budget as long as it is open.
class MetadataShare {
 public:
  explicit MetadataShare(std::shared_ptr<MetadataBudget> budget) : budget_(std::move(budget)) {}
  ~MetadataShare() { budget_->give_back(held_); }
  MetadataShare(const MetadataShare&) = delete;
  MetadataShare& operator=(const MetadataShare&) = delete;

  // Before the memory is asked for.
  Status take(std::size_t bytes) {
    if (!budget_->try_take(bytes)) {
      return Error(ErrorCode::kImageChain, "the tables of the images that are read together take more than " +
                                               std::to_string(budget_->limit() >> 20) + " MiB of memory")
          .advise("commit or rebase layers away first, or convert fewer images at once");
    }
    held_ += bytes;
    return {};
  }
  void give_back(std::size_t bytes) {
    budget_->give_back(bytes);
    held_ -= bytes;
  }
  void give_all_back() { give_back(held_); }
  const std::shared_ptr<MetadataBudget>& budget() const { return budget_; }

 private:
  std::shared_ptr<MetadataBudget> budget_;
  std::size_t held_ = 0;
};

}  // namespace sluicebox::image
