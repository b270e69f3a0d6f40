// table_cache.h: L2 tables and refcount blocks in memory: a bounded cache of one-cluster tables that can be dirty.
// Knows: a file, where a table lies. Does not know: what its entries mean.
// Threads: load() from any thread while nobody writes; everything else from the one writer.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <unordered_map>
#include <vector>

#include "base/bytes.h"
#include "base/mutex.h"
#include "base/result.h"
#include "image/file.h"
#include "image/metadata_budget.h"

namespace sluicebox::image::qcow2 {

class CachedTable : public std::enable_shared_from_this<CachedTable> {
 public:
  CachedTable(std::uint64_t offset, std::vector<std::byte> bytes) : offset_(offset), bytes_(std::move(bytes)) {}

  std::uint64_t offset() const { return offset_; }
  const std::byte* bytes() const { return bytes_.data(); }
  std::byte* bytes() { return bytes_.data(); }
  std::size_t size() const { return bytes_.size(); }

  bool dirty() const { return dirty_end_ != 0; }
  // No pointer on disk leads here yet: it may be written at any time, and must be written whole.
  bool fresh() const { return fresh_; }
  void set_fresh() {
    fresh_ = true;
    touch(0, bytes_.size());
  }
  void touch(std::size_t begin, std::size_t end);
  // What has to be written, rounded to sectors.
  std::uint64_t dirty_offset() const { return offset_ + dirty_begin_; }
  Bytes dirty_bytes() const { return Bytes(bytes_).subspan(dirty_begin_, dirty_end_ - dirty_begin_); }
  void written() {
    dirty_begin_ = dirty_end_ = 0;
    fresh_ = false;
  }

 private:
  std::uint64_t offset_;
  std::vector<std::byte> bytes_;
  std::size_t dirty_begin_ = 0, dirty_end_ = 0;
  bool fresh_ = false;
};

class TableCache {
 public:
  // As many tables as fit in `most_bytes`, but at least two; fewer when the budget has no more to give. The memory of
  // one is the owner's to take beforehand, so that whoever reads on in one table finds it again.
  TableCache(const File& file, std::size_t table_bytes, std::size_t most_bytes, std::shared_ptr<MetadataBudget> budget,
             std::byte past_end = std::byte{0})
      : file_(file),
        table_bytes_(table_bytes),
        most_bytes_(most_bytes),
        past_end_(past_end),
        budget_(std::move(budget)) {}
  ~TableCache() { clear(); }
  TableCache(const TableCache&) = delete;
  TableCache& operator=(const TableCache&) = delete;

  // What the file does not have of the table is `past_end`: the caller has checked that it begins inside.
  Result<std::shared_ptr<CachedTable>> load(std::uint64_t offset) EXCLUDES(mutex_);
  // A new table of zeros, or a copy of another, that takes the place of anything cached for this offset.
  std::shared_ptr<CachedTable> create(std::uint64_t offset, const CachedTable* copy_of) EXCLUDES(mutex_);
  void forget(std::uint64_t offset) EXCLUDES(mutex_);
  void clear() EXCLUDES(mutex_);

 private:
  using Recency = std::list<std::shared_ptr<CachedTable>>;  // most recent first
  std::shared_ptr<CachedTable> insert(std::shared_ptr<CachedTable> table) REQUIRES(mutex_);
  bool evict_oldest() REQUIRES(mutex_);
  void erase(Recency::iterator table) REQUIRES(mutex_);

  const File& file_;
  const std::size_t table_bytes_;
  const std::size_t most_bytes_;
  const std::byte past_end_;
  const std::shared_ptr<MetadataBudget> budget_;
  Mutex mutex_;
  Recency recency_ GUARDED_BY(mutex_);
  std::unordered_map<std::uint64_t, Recency::iterator> by_offset_ GUARDED_BY(mutex_);
};

}  // namespace sluicebox::image::qcow2
