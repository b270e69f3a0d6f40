// metadata_map.h: which clusters of the file are metadata, so that no guest byte is read from or written over them.
// Knows: offsets and lengths. Does not know: what the metadata says.
// Threads: const members from several threads while nobody writes.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <vector>

#include "image/formats/qcow2/layout.h"

namespace sluicebox::image::qcow2 {

// Runs of clusters, ascending and apart.
class ClusterRuns {
 public:
  struct Run {
    std::uint64_t begin, end;
  };
  // `begin` is no lower than that of the last one.
  void append(std::uint64_t begin, std::uint64_t end);
  bool empty() const { return runs_.empty(); }
  std::uint64_t first() const { return runs_.front().begin; }
  bool contains(std::uint64_t offset) const;
  std::size_t memory_bytes() const { return runs_.capacity() * sizeof(Run); }

 private:
  std::vector<Run> runs_;
};

class MetadataMap {
 public:
  explicit MetadataMap(const Geometry& geometry) : geometry_(geometry) {}

  // While the image is opened: everything in it, `ranges` at most, then seal(), which returns the clusters that were
  // added twice: as runs, for ranges that overlap may be many, and each long.
  void reserve(std::size_t ranges) { ranges_.reserve(ranges); }
  void add(std::uint64_t offset, std::uint64_t bytes);
  ClusterRuns seal();
  // What `ranges` of them take until seal() has returned, and what is kept then.
  static std::size_t memory_bytes(std::size_t ranges) { return ranges * sizeof(Range) * 3 / 2; }
  std::size_t kept_bytes() const { return ranges_.capacity() * sizeof(Range); }

  // Afterwards, as the image changes: whole clusters.
  void insert(std::uint64_t cluster_offset);
  void remove(std::uint64_t cluster_offset);

  // The first metadata cluster that [offset, offset + bytes) touches.
  std::optional<std::uint64_t> first_in(std::uint64_t offset, std::uint64_t bytes) const;

 private:
  struct Range {
    std::uint64_t begin, end;
  };
  Geometry geometry_;
  std::vector<Range> ranges_;  // sorted after seal(), whole clusters
  std::set<std::uint64_t> added_, removed_;
};

}  // namespace sluicebox::image::qcow2
