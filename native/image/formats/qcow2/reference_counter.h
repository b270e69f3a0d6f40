// reference_counter.h: how often each host cluster was found in use, in memory that follows what was found.
// Knows: cluster numbers. Does not know: who refers to them.
// Threads: one.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <memory>

namespace sluicebox::image::qcow2 {

class ReferenceCounter {
 public:
  static constexpr std::uint64_t kPageClusters = 1024;
  // Pages come on demand, so a file that is one large hole costs nothing. This is the most that they may take: counts
  // for 4 TiB of 64 KiB clusters, and more where they are scattered less.
  static constexpr std::size_t kMaxBytes = 256u << 20;

  using Page = std::array<std::uint32_t, kPageClusters>;

  // False when memory for more pages is not to be had.
  bool add(std::uint64_t cluster, std::uint32_t times) {
    Page* page = page_of(cluster);
    if (page == nullptr) return false;
    std::uint32_t& count = (*page)[cluster % kPageClusters];
    count = times > ~std::uint32_t{0} - count ? ~std::uint32_t{0} : count + times;  // saturates: no width holds more
    return true;
  }
  void subtract_one(std::uint64_t cluster) {
    if (get(cluster) != 0) --(*last_)[cluster % kPageClusters];
  }
  std::uint64_t get(std::uint64_t cluster) const {
    const std::uint64_t number = cluster / kPageClusters;
    if (number != last_number_) {
      const auto found = pages_.find(number);
      last_number_ = number;
      last_ = found == pages_.end() ? nullptr : found->second.get();
    }
    return last_ == nullptr ? 0 : (*last_)[cluster % kPageClusters];
  }
  // Every cluster with a count, ascending: visit(cluster, count).
  template <typename Visit>
  void for_each(Visit visit) const {
    for (const auto& [number, page] : pages_) {
      for (std::uint64_t i = 0; i < kPageClusters; ++i) {
        if ((*page)[i] != 0) visit(number * kPageClusters + i, (*page)[i]);
      }
    }
  }

 private:
  Page* page_of(std::uint64_t cluster) {
    const std::uint64_t number = cluster / kPageClusters;
    if (number == last_number_ && last_ != nullptr) return last_;
    auto found = pages_.find(number);
    if (found == pages_.end()) {
      if ((pages_.size() + 1) * sizeof(Page) > kMaxBytes) return nullptr;
      found = pages_.emplace(number, std::make_unique<Page>()).first;
    }
    last_number_ = number;
    last_ = found->second.get();
    return last_;
  }

  std::map<std::uint64_t, std::unique_ptr<Page>> pages_;
  mutable std::uint64_t last_number_ = ~std::uint64_t{0};  // most look-ups stay on one page
  mutable Page* last_ = nullptr;
};

}  // namespace sluicebox::image::qcow2
