#include "image/formats/qcow2/table_cache.h"

#include <algorithm>

#include "base/checked.h"
#include "image/formats/qcow2/layout.h"

namespace sluicebox::image::qcow2 {

namespace {

constexpr std::size_t kLongestEntry = 16;  // one of which only a part is there is not there

}  // namespace

void CachedTable::touch(std::size_t begin, std::size_t end) {
  begin = begin / kSectorBytes * kSectorBytes;
  end = std::min(bytes_.size(), (end + kSectorBytes - 1) / kSectorBytes * kSectorBytes);
  dirty_begin_ = dirty() ? std::min(dirty_begin_, begin) : begin;
  dirty_end_ = std::max(dirty_end_, end);
}

Result<std::shared_ptr<CachedTable>> TableCache::load(std::uint64_t offset) {
  {
    const MutexLock lock(mutex_);
    if (const auto found = by_offset_.find(offset); found != by_offset_.end()) {
      recency_.splice(recency_.begin(), recency_, found->second);
      return *found->second;
    }
  }
  // Read outside the lock: two threads may read the same table, and the first to return is kept.
  std::vector<std::byte> bytes(table_bytes_);
  const std::size_t had = TRY(file_.read_at(offset, bytes));
  if (had < bytes.size() && past_end_ != std::byte{0}) {
    std::ranges::fill(std::span(bytes).subspan(align_down(had, kLongestEntry)), past_end_);
  }
  auto table = std::make_shared<CachedTable>(offset, std::move(bytes));
  const MutexLock lock(mutex_);
  if (const auto found = by_offset_.find(offset); found != by_offset_.end()) return *found->second;
  return insert(std::move(table));
}

std::shared_ptr<CachedTable> TableCache::create(std::uint64_t offset, const CachedTable* copy_of) {
  std::vector<std::byte> bytes(table_bytes_);
  if (copy_of != nullptr) std::memcpy(bytes.data(), copy_of->bytes(), table_bytes_);
  auto table = std::make_shared<CachedTable>(offset, std::move(bytes));
  table->set_fresh();
  forget(offset);
  const MutexLock lock(mutex_);
  return insert(std::move(table));
}

void TableCache::forget(std::uint64_t offset) {
  const MutexLock lock(mutex_);
  if (const auto found = by_offset_.find(offset); found != by_offset_.end()) erase(found->second);
}

void TableCache::clear() {
  const MutexLock lock(mutex_);
  while (!recency_.empty()) erase(recency_.begin());
}

std::shared_ptr<CachedTable> TableCache::insert(std::shared_ptr<CachedTable> table) {
  const std::size_t most = std::max<std::size_t>(2, most_bytes_ / table_bytes_);
  while (by_offset_.size() >= most && evict_oldest()) {
  }
  // The first table is paid for. One more than the budget has is one that nothing here can make room for: it is dirty
  // or in use, and the writer flushes before those become many.
  while (!by_offset_.empty() && !budget_->try_take(table_bytes_)) {
    if (evict_oldest()) continue;
    budget_->take_anyway(table_bytes_);
    break;
  }
  recency_.push_front(std::move(table));
  by_offset_[recency_.front()->offset()] = recency_.begin();
  return recency_.front();
}

// Dirty tables stay, whatever the budget: the writer flushes before they become many. So do those in use: one that its
// holder is about to change must be found by the next to look for it.
bool TableCache::evict_oldest() {
  for (auto table = recency_.end(); table != recency_.begin();) {
    --table;
    if ((*table)->dirty() || table->use_count() > 1) continue;
    erase(table);
    return true;
  }
  return false;
}

void TableCache::erase(Recency::iterator table) {
  by_offset_.erase((*table)->offset());
  recency_.erase(table);
  if (!by_offset_.empty()) budget_->give_back(table_bytes_);
}

}  // namespace sluicebox::image::qcow2
