#include "image/formats/qcow2/metadata_map.h"

#include <algorithm>

namespace sluicebox::image::qcow2 {

void MetadataMap::add(std::uint64_t offset, std::uint64_t bytes) {
  if (bytes == 0) return;
  const std::uint64_t begin = offset - geometry_.in_cluster(offset);
  ranges_.push_back({begin, begin + (geometry_.clusters_for(offset - begin + bytes) << geometry_.cluster_bits)});
}

void ClusterRuns::append(std::uint64_t begin, std::uint64_t end) {
  if (!runs_.empty() && begin <= runs_.back().end) {
    runs_.back().end = std::max(runs_.back().end, end);
  } else {
    runs_.push_back({begin, end});
  }
}

bool ClusterRuns::contains(std::uint64_t offset) const {
  const auto run = std::upper_bound(runs_.begin(), runs_.end(), offset,
                                    [](std::uint64_t at, const Run& each) { return at < each.end; });
  return run != runs_.end() && run->begin <= offset;
}

ClusterRuns MetadataMap::seal() {
  std::sort(ranges_.begin(), ranges_.end(), [](const Range& a, const Range& b) { return a.begin < b.begin; });
  ClusterRuns twice;
  std::size_t merged = 0;
  for (const Range& range : ranges_) {
    if (merged != 0 && range.begin <= ranges_[merged - 1].end) {
      Range& last = ranges_[merged - 1];
      if (range.begin < last.end) twice.append(range.begin, std::min(range.end, last.end));
      last.end = std::max(last.end, range.end);
    } else {
      ranges_[merged++] = range;
    }
  }
  ranges_.resize(merged);
  // A copy for a moment: only where it is small beside what it frees.
  if (merged <= ranges_.capacity() / 2) ranges_.shrink_to_fit();
  return twice;
}

void MetadataMap::insert(std::uint64_t cluster_offset) {
  removed_.erase(cluster_offset);
  added_.insert(cluster_offset);
}

void MetadataMap::remove(std::uint64_t cluster_offset) {
  added_.erase(cluster_offset);
  removed_.insert(cluster_offset);
}

std::optional<std::uint64_t> MetadataMap::first_in(std::uint64_t offset, std::uint64_t bytes) const {
  const std::uint64_t end = offset + bytes;
  std::optional<std::uint64_t> first;
  if (const auto it = added_.lower_bound(offset - geometry_.in_cluster(offset)); it != added_.end() && *it < end) {
    first = *it;
  }
  auto range = std::upper_bound(ranges_.begin(), ranges_.end(), offset,
                                [](std::uint64_t at, const Range& each) { return at < each.end; });
  for (; range != ranges_.end() && range->begin < end; ++range) {
    std::uint64_t at = std::max(range->begin, offset - geometry_.in_cluster(offset));
    while (at < std::min(range->end, end) && removed_.contains(at)) at += geometry_.cluster();
    if (at < std::min(range->end, end)) return first ? std::min(*first, at) : at;
  }
  return first;
}

}  // namespace sluicebox::image::qcow2
