// refcounts.h: the stored reference count of every host cluster, and how the structure that keeps them grows.
// Knows: an open image. Does not know: who refers to a cluster.
// Threads: the one writer.
//
// Raised counts become durable before anything points at the clusters, lowered ones after nothing does: the writer
// decides when by calling write_blocks() and write_table() between its syncs.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "image/formats/qcow2/image_state.h"

namespace sluicebox::image::qcow2 {

class Refcounts {
 public:
  explicit Refcounts(ImageState& image);

  Result<std::uint64_t> get(std::uint64_t cluster);
  // From 0 to 1. The cluster's block exists.
  Status take(std::uint64_t cluster);
  // One more, of a cluster that is counted already. The caller knows that the width has room for it.
  Status raise(std::uint64_t cluster);
  // Returns what is left.
  Result<std::uint64_t> lower(std::uint64_t cluster);

  bool has_block(std::uint64_t cluster) const;
  // Makes the block that is to count `cluster`, and puts it into that very cluster; where the table is full, a larger
  // table is laid out from there on. Either way `cluster` is taken.
  Status make_block(std::uint64_t cluster);

  // For a row of clusters that nobody uses, at `cluster` or behind: makes the blocks that it lacks, side by side before
  // the row, and returns where the row begins.
  Result<std::uint64_t> make_blocks_before(std::uint64_t cluster, std::uint64_t row);
  // The highest cluster that the block counts, the block's own cluster apart.
  Result<std::optional<std::uint64_t>> highest_counted(std::uint64_t block_index);
  // A block that counts nothing but itself is left out of the table. Returns its cluster, whose count went with it, or
  // is another block's to lower.
  std::uint64_t drop_block(std::uint64_t block_index);

  std::size_t dirty_blocks() const { return dirty_.size(); }
  bool table_dirty() const { return relocated_ || !dirty_entries_.empty(); }
  Status write_blocks();
  // Before the sync that precedes write_table(): a table that moved, in its new place.
  Status write_moved_table();
  // The entries of new blocks, or the header's pointer to the table that moved.
  Status write_table();
  // Clusters of a table that moved away, to be lowered once the header's new pointer is durable.
  std::vector<std::uint64_t> take_retired() { return std::move(retired_); }

 private:
  Result<CachedTable*> block_of(std::uint64_t cluster);
  Status grow_table(std::uint64_t cluster);
  void new_block(std::uint64_t index, std::uint64_t offset);
  Status set(std::uint64_t cluster, std::uint64_t value);

  ImageState& image_;
  TableCache blocks_;
  std::shared_ptr<CachedTable> current_;  // the block asked for last
  std::uint64_t current_index_ = ~std::uint64_t{0};
  std::unordered_map<std::uint64_t, std::shared_ptr<CachedTable>> dirty_;  // by table index
  std::set<std::uint64_t> dirty_entries_;
  bool relocated_ = false;
  std::vector<std::uint64_t> retired_;
};

}  // namespace sluicebox::image::qcow2
