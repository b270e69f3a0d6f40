#include "image/formats/qcow2/measure.h"

#include <algorithm>
#include <limits>
#include <string>

#include "base/checked.h"

namespace sluicebox::image::qcow2 {

namespace {

// Blocks and table count themselves as well, so their number is found in a few rounds.
std::uint64_t refcount_clusters(const Geometry& geometry, std::uint64_t counted) {
  std::uint64_t blocks = 0, table = 0;
  for (std::uint64_t all = 0, before = 1; all != before;) {
    before = all;
    blocks = div_round_up(counted + table + blocks, geometry.refcounts_per_block());
    table = div_round_up(blocks, geometry.cluster() / 8);
    all = counted + blocks + table;
  }
  return blocks + table;
}

}  // namespace

Result<FileSizes> measure_file(const Geometry& geometry, std::uint64_t disk_bytes, std::uint64_t data_bytes) {
  const std::uint64_t clusters = geometry.clusters_for(disk_bytes);
  const std::uint64_t l2_tables = div_round_up(clusters, geometry.l2_entries());
  constexpr std::uint64_t kLargest = std::numeric_limits<std::int64_t>::max();
  if (l2_tables > kMaxL1Entries || clusters > (kLargest / 2) >> geometry.cluster_bits) {
    return Error(ErrorCode::kInvalidArgument, "size: " + std::to_string(disk_bytes) +
                                                  " bytes are more than clusters of " +
                                                  std::to_string(geometry.cluster()) + " bytes can map");
  }
  const std::uint64_t tables = 1 + l2_tables + div_round_up(l2_tables, geometry.cluster() / 8);  // the header first
  const std::uint64_t all = tables + clusters + refcount_clusters(geometry, tables + clusters);
  FileSizes sizes;
  sizes.fully_allocated = all << geometry.cluster_bits;
  sizes.required = ((all - clusters) << geometry.cluster_bits) + data_bytes;
  return sizes;
}

std::uint64_t measure_bitmaps(const Geometry& geometry, std::uint64_t disk_bytes,
                              const std::vector<PersistentBitmap>& bitmaps) {
  const auto in_clusters = [&](std::uint64_t bytes) { return geometry.clusters_for(bytes) << geometry.cluster_bits; };
  std::uint64_t bytes = 0, directory = 0;
  for (const PersistentBitmap& bitmap : bitmaps) {
    // No bitmap is larger, and the directory's length bounds how many there are.
    const std::uint64_t bits = div_round_up(disk_bytes, bitmap.granularity);
    const std::uint64_t clusters = geometry.clusters_for(std::min(div_round_up(bits, 8), kMaxBitmapBytes));
    bytes += (clusters << geometry.cluster_bits) + in_clusters(clusters * 8);
    directory += div_round_up(kBitmapEntryBytes + bitmap.name.size(), 8) * 8;
  }
  return bytes + in_clusters(directory);
}

}  // namespace sluicebox::image::qcow2
