#include "image/formats/qcow2/allocator.h"

#include <algorithm>

namespace sluicebox::image::qcow2 {

namespace {
// Counted clusters behind the end of the file are rare (a crash leaks a few). Beyond this many the counts are wrong.
constexpr std::uint64_t kMostCountedPastEnd = 1u << 20;
}  // namespace

Result<bool> Allocator::is_free(std::uint64_t cluster) {
  if (TRY(refcounts_.get(cluster)) != 0) return false;
  const std::uint64_t offset = cluster << image_.geometry().cluster_bits;
  if (image_.metadata.first_in(offset, 1)) {
    return image_.corrupt("a metadata cluster has no reference count", offset);
  }
  return in_use_.get(cluster) == 0;
}

Result<ClusterRun> Allocator::allocate(std::uint64_t most) {
  const Geometry& geometry = image_.geometry();
  const std::uint64_t file_clusters = geometry.clusters_for(image_.file_end);
  while (true) {
    if (cursor_ >= kMaxHostOffset >> geometry.cluster_bits || cursor_ > file_clusters + kMostCountedPastEnd) {
      return image_.corrupt("the reference counts leave no cluster free", image_.header.refcount_table_offset)
          .advise("run check with repair");
    }
    if (refcounts_.has_block(cursor_)) {
      if (TRY(is_free(cursor_))) break;
      ++cursor_;
    } else if (cursor_ < file_clusters) {
      cursor_ = file_clusters;  // What lies inside the file but is not counted may be anyone's.
    } else {
      TRY(refcounts_.make_block(cursor_));
      ++cursor_;
    }
  }
  ClusterRun run{cursor_ << geometry.cluster_bits, 0};
  while (run.clusters < most && refcounts_.has_block(cursor_) && TRY(is_free(cursor_))) {
    TRY(refcounts_.take(cursor_));
    ++cursor_;
    ++run.clusters;
  }
  return run;
}

Result<ClusterRun> Allocator::allocate_row(std::uint64_t clusters) {
  const Geometry& geometry = image_.geometry();
  const std::uint64_t file_clusters = geometry.clusters_for(image_.file_end);
  // The blocks need room as well.
  const std::uint64_t most = clusters + clusters / geometry.refcounts_per_block() + 2;
  std::uint64_t first = std::max(cursor_, file_clusters);
  for (std::uint64_t at = first; at < first + most; ++at) {
    if (!TRY(is_free(at))) first = at + 1;
    if (first > file_clusters + kMostCountedPastEnd) {
      return image_.corrupt("the reference counts leave no clusters free", image_.header.refcount_table_offset)
          .advise("run check with repair");
    }
  }
  first = TRY(refcounts_.make_blocks_before(first, clusters));
  for (std::uint64_t i = 0; i < clusters; ++i) TRY(refcounts_.take(first + i));
  return ClusterRun{first << geometry.cluster_bits, clusters};
}

void Allocator::skip_to_file_end() {
  floor_ = cursor_ = std::max(cursor_, image_.geometry().clusters_for(image_.file_end));
}

std::optional<std::uint64_t> Allocator::found_end() const {
  if (floor_ != 0) return std::nullopt;
  std::uint64_t end = 0;
  in_use_.for_each([&](std::uint64_t cluster, std::uint32_t) { end = cluster + 1; });
  return end;
}

void Allocator::lowered(std::uint64_t cluster, std::uint64_t left) {
  in_use_.subtract_one(cluster);
  if (left == 0) cursor_ = std::max(floor_, std::min(cursor_, cluster));
}

}  // namespace sluicebox::image::qcow2
