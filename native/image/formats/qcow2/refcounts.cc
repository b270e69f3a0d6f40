#include "image/formats/qcow2/refcounts.h"

#include <algorithm>
#include <array>

#include "base/checked.h"
#include "image/formats/qcow2/refcount_width.h"

namespace sluicebox::image::qcow2 {

namespace {
constexpr std::size_t kBlockCacheBytes = 8u << 20;
}

Refcounts::Refcounts(ImageState& image)
    : image_(image), blocks_(image.file, image.geometry().cluster(), kBlockCacheBytes, image.tables.budget()) {}

bool Refcounts::has_block(std::uint64_t cluster) const {
  const std::uint64_t index = cluster / image_.geometry().refcounts_per_block();
  return index < image_.refcount_table.size() && image_.refcount_table[index] != 0;
}

Result<CachedTable*> Refcounts::block_of(std::uint64_t cluster) {
  const std::uint64_t index = cluster / image_.geometry().refcounts_per_block();
  if (index == current_index_) return current_.get();
  const std::uint64_t offset = image_.refcount_table[index];
  if (!image_.geometry().valid_cluster_offset(offset)) {
    return image_.corrupt("a refcount table entry is unaligned", image_.header.refcount_table_offset + index * 8);
  }
  if (const auto found = dirty_.find(index); found != dirty_.end()) {
    current_ = found->second;
  } else {
    if (!image_.begins_in_file(offset)) {
      return image_.corrupt("a refcount block lies past the end of the file", offset);
    }
    current_ = TRY(blocks_.load(offset));
  }
  current_index_ = index;
  return current_.get();
}

Result<std::uint64_t> Refcounts::get(std::uint64_t cluster) {
  if (!has_block(cluster)) return std::uint64_t{0};
  const CachedTable* block = TRY(block_of(cluster));
  return load_refcount(block->bytes(), image_.geometry().refcount_order,
                       cluster % image_.geometry().refcounts_per_block());
}

Status Refcounts::set(std::uint64_t cluster, std::uint64_t value) {
  CachedTable* block = TRY(block_of(cluster));
  const Geometry& geometry = image_.geometry();
  const std::uint64_t slot = cluster % geometry.refcounts_per_block();
  store_refcount(block->bytes(), geometry.refcount_order, slot, value);
  const std::uint64_t byte = (slot << geometry.refcount_order) / 8;
  block->touch(byte, byte + 1);
  dirty_.try_emplace(current_index_, current_);
  return {};
}

Status Refcounts::take(std::uint64_t cluster) { return set(cluster, 1); }

Status Refcounts::raise(std::uint64_t cluster) {
  const std::uint64_t count = TRY(get(cluster));
  return set(cluster, count + 1);
}

Result<std::uint64_t> Refcounts::lower(std::uint64_t cluster) {
  const std::uint64_t count = TRY(get(cluster));
  if (count == 0) {
    return image_.corrupt("a cluster in use has no reference count", cluster << image_.geometry().cluster_bits);
  }
  TRY(set(cluster, count - 1));
  return count - 1;
}

void Refcounts::new_block(std::uint64_t index, std::uint64_t offset) {
  image_.refcount_table[index] = offset;
  image_.metadata.insert(offset);
  dirty_[index] = blocks_.create(offset, nullptr);
  dirty_entries_.insert(index);
  if (index == current_index_) current_index_ = ~std::uint64_t{0};
}

Status Refcounts::make_block(std::uint64_t cluster) {
  const Geometry& geometry = image_.geometry();
  const std::uint64_t index = cluster / geometry.refcounts_per_block();
  if (index >= image_.refcount_table.size()) return grow_table(cluster);
  new_block(index, cluster << geometry.cluster_bits);
  return take(cluster);
}

// From `cluster` on: the blocks that count the new area, then the new table, half as large again as needed. Nothing
// there was counted before, so nothing there is in use.
Status Refcounts::grow_table(std::uint64_t cluster) {
  const Geometry& geometry = image_.geometry();
  const std::uint64_t per_block = geometry.refcounts_per_block();
  const std::uint64_t first_index = cluster / per_block;
  std::uint64_t blocks = 1;
  std::uint64_t table_clusters = 1;
  std::uint64_t entries = 0;
  while (true) {
    const std::uint64_t last = cluster + blocks + table_clusters - 1;
    const std::uint64_t need_blocks = last / per_block - first_index + 1;
    entries = std::min((last / per_block + 1) * 3 / 2, kMaxRefcountTableBytes / 8);
    const std::uint64_t need_clusters = geometry.clusters_for(entries * 8);
    if (last / per_block >= entries) {
      return Error(ErrorCode::kNoSpace, "the image is at its largest: its refcount table cannot grow")
          .on(image_.file.path());
    }
    if (need_blocks <= blocks && need_clusters <= table_clusters) break;
    blocks = std::max(blocks, need_blocks);
    table_clusters = std::max(table_clusters, need_clusters);
  }
  const std::uint64_t old_first = image_.header.refcount_table_offset >> geometry.cluster_bits;
  for (std::uint64_t i = 0; i < image_.header.refcount_table_clusters; ++i) retired_.push_back(old_first + i);
  image_.refcount_table.resize((table_clusters << geometry.cluster_bits) / 8);
  for (std::uint64_t i = 0; i < blocks; ++i) {
    if (first_index + i < image_.refcount_table.size() && image_.refcount_table[first_index + i] == 0) {
      new_block(first_index + i, (cluster + i) << geometry.cluster_bits);
    }
  }
  for (std::uint64_t i = 0; i < blocks + table_clusters; ++i) {
    TRY(take(cluster + i));
    image_.metadata.insert((cluster + i) << geometry.cluster_bits);
  }
  image_.header.refcount_table_offset = (cluster + blocks) << geometry.cluster_bits;
  image_.header.refcount_table_clusters = static_cast<std::uint32_t>(table_clusters);
  relocated_ = true;
  return {};
}

// The blocks count themselves too, so their number settles in a few rounds.
Result<std::uint64_t> Refcounts::make_blocks_before(std::uint64_t cluster, std::uint64_t row) {
  const Geometry& geometry = image_.geometry();
  const std::uint64_t per_block = geometry.refcounts_per_block();
  std::vector<std::uint64_t> missing;
  while (true) {
    const std::uint64_t last = (cluster + missing.size() + row - 1) / per_block;
    if (last >= image_.refcount_table.size()) {
      // What no table counts begins with a block of its own: there the larger table goes, and the row behind it.
      cluster = std::max<std::uint64_t>(cluster, image_.refcount_table.size() * per_block);
      TRY(grow_table(cluster));
      cluster = (image_.header.refcount_table_offset >> geometry.cluster_bits) + image_.header.refcount_table_clusters;
      missing.clear();
      continue;
    }
    const std::size_t before = missing.size();
    missing.clear();
    for (std::uint64_t index = cluster / per_block; index <= last; ++index) {
      if (image_.refcount_table[index] == 0) missing.push_back(index);
    }
    if (missing.size() == before) break;
  }
  for (std::size_t i = 0; i < missing.size(); ++i) new_block(missing[i], (cluster + i) << geometry.cluster_bits);
  for (std::size_t i = 0; i < missing.size(); ++i) TRY(take(cluster + i));
  return cluster + missing.size();
}

Result<std::optional<std::uint64_t>> Refcounts::highest_counted(std::uint64_t block_index) {
  const Geometry& geometry = image_.geometry();
  const std::uint64_t first = block_index * geometry.refcounts_per_block();
  const std::uint64_t own = image_.refcount_table[block_index] >> geometry.cluster_bits;
  for (std::uint64_t cluster = first + geometry.refcounts_per_block(); cluster-- > first;) {
    if (cluster != own && TRY(get(cluster)) != 0) return std::optional(cluster);
  }
  return std::optional<std::uint64_t>();
}

std::uint64_t Refcounts::drop_block(std::uint64_t block_index) {
  const std::uint64_t offset = image_.refcount_table[block_index];
  image_.refcount_table[block_index] = 0;
  dirty_entries_.insert(block_index);
  dirty_.erase(block_index);
  blocks_.forget(offset);
  if (block_index == current_index_) current_index_ = ~std::uint64_t{0};
  return offset >> image_.geometry().cluster_bits;
}

Status Refcounts::write_blocks() {
  for (auto& [index, block] : dirty_) {
    TRY(image_.write(block->dirty_offset(), block->dirty_bytes()));
    block->written();
  }
  dirty_.clear();
  return {};
}

Status Refcounts::write_moved_table() {
  if (!relocated_) return {};
  std::vector<std::byte> raw(image_.refcount_table.size() * 8);
  for (std::size_t i = 0; i < image_.refcount_table.size(); ++i) {
    store_be64(raw.data() + i * 8, image_.refcount_table[i]);
  }
  return image_.write(image_.header.refcount_table_offset, raw);
}

Status Refcounts::write_table() {
  if (relocated_) {
    // Offset and length are neighbours in the header's first sector: one write switches both.
    std::array<std::byte, 12> pointer;
    store_be64(pointer.data(), image_.header.refcount_table_offset);
    store_be32(pointer.data() + 8, image_.header.refcount_table_clusters);
    TRY(image_.write(at::kRefcountTableOffset, pointer));
  } else {
    for (const std::uint64_t index : dirty_entries_) {
      std::array<std::byte, 8> raw;
      store_be64(raw.data(), image_.refcount_table[index]);
      TRY(image_.write(image_.header.refcount_table_offset + index * 8, raw));
    }
  }
  relocated_ = false;
  dirty_entries_.clear();
  return {};
}

}  // namespace sluicebox::image::qcow2
