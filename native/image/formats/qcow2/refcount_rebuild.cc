#include "image/formats/qcow2/refcount_rebuild.h"

#include <algorithm>
#include <array>
#include <set>

#include "image/formats/qcow2/refcount_width.h"

namespace sluicebox::image::qcow2 {

namespace {

struct NewStructure {
  std::set<std::uint64_t> blocks;  // table indexes
  std::uint64_t first_cluster = 0;
  std::uint64_t table_clusters = 1;
  std::uint64_t clusters() const { return blocks.size() + table_clusters; }
};

// Behind everything that may be anybody's: behind the file, or on a block device behind the old structure, whose
// clusters nobody counts any more, as the rest is counted.
std::uint64_t first_free(const ImageState& image, const Survey& survey) {
  const Geometry& geometry = image.geometry();
  if (!image.file.has_fixed_size()) return geometry.clusters_for(image.file_end);
  const std::uint64_t table = image.header.refcount_table_offset >> geometry.cluster_bits;
  std::uint64_t end = table + image.header.refcount_table_clusters;
  for (std::size_t i = 0; i < survey.usable_blocks.size(); ++i) {
    if (survey.usable_blocks[i]) end = std::max(end, (image.refcount_table[i] >> geometry.cluster_bits) + 1);
  }
  return end;
}

// The new clusters need blocks themselves, so this settles in a few rounds.
void place(const ImageState& image, const Survey& survey, NewStructure& made) {
  const Geometry& geometry = image.geometry();
  const std::uint64_t per_block = geometry.refcounts_per_block();
  made.first_cluster = first_free(image, survey);
  survey.counts.for_each([&](std::uint64_t cluster, std::uint32_t) {
    made.blocks.insert(cluster / per_block);
    // A last cluster that the file's end cuts short, or a compressed span's last, may reach past it.
    made.first_cluster = std::max(made.first_cluster, cluster + 1);
  });
  while (true) {
    const std::uint64_t last = made.first_cluster + made.clusters() - 1;
    const std::size_t before = made.blocks.size();
    for (std::uint64_t i = made.first_cluster / per_block; i <= last / per_block; ++i) made.blocks.insert(i);
    const std::uint64_t need = geometry.clusters_for((*made.blocks.rbegin() + 1) * 8);
    if (made.blocks.size() == before && need <= made.table_clusters) return;
    made.table_clusters = std::max(made.table_clusters, need);
  }
}

}  // namespace

// With the old structure still among what is counted, so it may say no where a rebuild would just succeed.
bool rebuild_would_fit(const ImageState& image, const Survey& survey) {
  NewStructure made;
  place(image, survey, made);
  return made.table_clusters << image.geometry().cluster_bits <= kMaxRefcountTableBytes;
}

Result<bool> rebuild_refcounts(ImageState& image, Survey& survey) {
  const Geometry& geometry = image.geometry();
  Header& header = image.header;
  // The old structure goes.
  const std::uint64_t old_first = header.refcount_table_offset >> geometry.cluster_bits;
  for (std::uint64_t i = 0; i < header.refcount_table_clusters; ++i) survey.counts.subtract_one(old_first + i);
  for (std::uint64_t i = 0; i < survey.usable_blocks.size(); ++i) {
    if (survey.usable_blocks[i]) survey.counts.subtract_one(image.refcount_table[i] >> geometry.cluster_bits);
  }
  bool fits = true;
  survey.counts.for_each([&](std::uint64_t, std::uint32_t count) { fits = fits && count <= geometry.max_refcount(); });
  if (!fits) return false;
  NewStructure made;
  place(image, survey, made);
  const std::uint64_t table_bytes = made.table_clusters << geometry.cluster_bits;
  if (table_bytes > kMaxRefcountTableBytes) return false;

  const std::uint64_t new_end = made.first_cluster + made.clusters();
  std::vector<std::uint64_t> table(table_bytes / 8);
  std::vector<std::byte> block(geometry.cluster());
  std::uint64_t at = made.first_cluster;
  for (const std::uint64_t index : made.blocks) {
    std::fill(block.begin(), block.end(), std::byte{0});
    const std::uint64_t first = index * geometry.refcounts_per_block();
    for (std::uint64_t i = 0; i < geometry.refcounts_per_block(); ++i) {
      const std::uint64_t cluster = first + i;
      const bool is_new = cluster >= made.first_cluster && cluster < new_end;
      const std::uint64_t count = survey.counts.get(cluster) + (is_new ? 1 : 0);
      if (count != 0) store_refcount(block.data(), geometry.refcount_order, i, count);
    }
    table[index] = at << geometry.cluster_bits;
    TRY(image.write(table[index], block));
    ++at;
  }
  std::vector<std::byte> raw(table_bytes);
  for (std::size_t i = 0; i < table.size(); ++i) store_be64(raw.data() + i * 8, table[i]);
  TRY(image.write(at << geometry.cluster_bits, raw));
  TRY(image.file.sync());
  std::array<std::byte, 12> pointer;
  store_be64(pointer.data(), at << geometry.cluster_bits);
  store_be32(pointer.data() + 8, static_cast<std::uint32_t>(made.table_clusters));
  TRY(image.write(at::kRefcountTableOffset, pointer));
  TRY(image.file.sync());
  for (std::uint64_t i = made.first_cluster; i < new_end; ++i) survey.counts.add(i, 1);
  header.refcount_table_offset = at << geometry.cluster_bits;
  header.refcount_table_clusters = static_cast<std::uint32_t>(made.table_clusters);
  image.refcount_table = std::move(table);
  return true;
}

}  // namespace sluicebox::image::qcow2
