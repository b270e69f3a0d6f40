#include "image/formats/qcow2/plan.h"

#include <bit>

#include "base/checked.h"
#include "image/formats/qcow2/feature_names.h"
#include "image/formats/qcow2/header.h"
#include "image/formats/qcow2/refcount_width.h"

namespace sluicebox::image::qcow2 {

namespace {

// Where everything lies, in clusters: header, refcount table, refcount blocks, L1 table, as qemu-img lays it out.
struct Layout {
  Header header;
  std::vector<std::byte> head;  // the serialised header, then the backing path
  std::uint64_t refcount_blocks = 0;
  std::uint64_t used_clusters = 0;
  std::uint64_t l1_bytes = 0;

  std::uint64_t table_bytes() const { return refcount_blocks * 8; }
  // The blocks lie side by side, so the counts of all used clusters are one run of bits.
  std::uint64_t refcount_bytes() const { return div_round_up(used_clusters << header.geometry.refcount_order, 8); }
  std::uint64_t blocks_offset() const {
    return (std::uint64_t{1} + header.refcount_table_clusters) << header.geometry.cluster_bits;
  }
  // The L1 table is all zeros: its last entry alone is written, so that the file ends behind the table.
  std::uint64_t l1_tail_bytes() const { return l1_bytes == 0 ? 0 : 8; }
  std::size_t scratch() const { return head.size() + table_bytes() + refcount_bytes() + l1_tail_bytes(); }
};

Error invalid(std::string text) { return Error(ErrorCode::kInvalidArgument, std::move(text)); }

Status check_options(const PlanOptions& options) {
  if (options.version != 2 && options.version != 3) return invalid("version must be 2 or 3");
  if (!is_power_of_two(options.cluster_size) || options.cluster_size < (1u << kMinClusterBits) ||
      options.cluster_size > (1u << kMaxClusterBits)) {
    return invalid("clusterSize must be a power of two from 512 bytes to 2 MiB, got " +
                   std::to_string(options.cluster_size));
  }
  if (!is_power_of_two(options.refcount_bits) || options.refcount_bits > 64) {
    return invalid("refcountBits must be 1, 2, 4, 8, 16, 32 or 64, got " + std::to_string(options.refcount_bits));
  }
  if (options.version == 2 && options.refcount_bits != 16) return invalid("refcountBits must be 16 in version 2");
  if (options.version == 2 && options.lazy_refcounts) return invalid("lazyRefcounts needs version 3");
  if (options.version == 2 && options.extended_l2) return invalid("extendedL2 needs version 3");
  if (options.version == 2 && options.zstd) return invalid("compression 'zstd' needs version 3");
  if (options.extended_l2 && options.cluster_size < (1u << kMinExtendedClusterBits)) {
    return invalid("extendedL2 needs a clusterSize of 16 KiB or more, got " + std::to_string(options.cluster_size));
  }
  if (options.virtual_size % kSectorBytes != 0) {
    return invalid("size must be a multiple of 512, got " + std::to_string(options.virtual_size));
  }
  return {};
}

Status check_backing(const PlanOptions& options) {
  if (options.backing_path.empty()) {
    if (!options.backing_format.empty()) return invalid("backing: a format without a path");
    return {};
  }
  if (options.backing_path.size() > kMaxBackingPath) {
    return invalid("backing: the path has " + std::to_string(options.backing_path.size()) +
                   " bytes, the format stores at most 1023");
  }
  if (options.backing_path.find('\0') != std::string::npos) return invalid("backing: the path has a NUL byte");
  if (options.backing_format.size() > kMaxBackingFormat) return invalid("backing: the format's name is too long");
  if (options.backing_format.find('\0') != std::string::npos) return invalid("backing: the format has a NUL byte");
  return {};
}

// Blocks count themselves and the table that points at them, so the three sizes are found together.
Status place_tables(Layout& layout) {
  Header& header = layout.header;
  const Geometry& geometry = header.geometry;
  const std::uint64_t l1_entries = geometry.l1_entries_for(header.size);
  if (l1_entries > kMaxL1Entries) {
    return invalid("size: " + std::to_string(header.size) + " bytes need an L1 table above 32 MiB")
        .advise("use a larger clusterSize");
  }
  header.l1_size = static_cast<std::uint32_t>(l1_entries);
  layout.l1_bytes = l1_entries * 8;
  const std::uint64_t l1_clusters = geometry.clusters_for(layout.l1_bytes);
  std::uint64_t blocks = 1;
  std::uint64_t table_clusters = 1;
  while (true) {
    layout.used_clusters = 1 + table_clusters + blocks + l1_clusters;
    const std::uint64_t need = div_round_up(layout.used_clusters, geometry.refcounts_per_block());
    if (need <= blocks) break;
    blocks = need;
    table_clusters = geometry.clusters_for(blocks * 8);
  }
  layout.refcount_blocks = blocks;
  header.refcount_table_clusters = static_cast<std::uint32_t>(table_clusters);
  header.refcount_table_offset = geometry.cluster();
  if (l1_entries > 0) header.l1_offset = (1 + table_clusters + blocks) << geometry.cluster_bits;
  return {};
}

// The feature names are a courtesy to readers: they go when the cluster has no room for them.
Status place_head(const PlanOptions& options, Layout& layout) {
  Header& header = layout.header;
  if (options.version >= 3) header.extensions.push_back(feature_name_table());
  if (!options.backing_path.empty()) {
    header.backing = BackingReference{options.backing_path, std::nullopt};
    if (!options.backing_format.empty()) header.backing->format = options.backing_format;
  }
  layout.head = serialize_header(header);
  if (layout.head.size() + options.backing_path.size() > options.cluster_size) {
    header.extensions.clear();
    layout.head = serialize_header(header);
  }
  if (layout.head.size() + options.backing_path.size() > options.cluster_size) {
    return invalid("backing: the path does not fit in the first cluster").advise("use a larger clusterSize");
  }
  if (header.backing) {
    header.backing_offset = layout.head.size();
    layout.head = serialize_header(header);
    const Bytes path = as_bytes(options.backing_path);
    layout.head.insert(layout.head.end(), path.begin(), path.end());
  }
  return {};
}

Result<Layout> lay_out(const PlanOptions& options) {
  const Geometry geometry = TRY(plan_geometry(options));
  TRY(check_backing(options));
  Layout layout;
  Header& header = layout.header;
  header.version = options.version;
  header.header_length = options.version == 2 ? kHeaderBytesV2 : kHeaderBytesV3;
  header.size = options.virtual_size;
  header.geometry = geometry;
  header.compatible = options.lazy_refcounts ? kLazyRefcounts : 0;
  if (options.extended_l2) header.incompatible |= static_cast<std::uint64_t>(Incompatible::kExtendedL2);
  if (options.zstd) {
    header.incompatible |= static_cast<std::uint64_t>(Incompatible::kCompression);
    header.compression_type = 1;
  }
  TRY(place_tables(layout));
  TRY(place_head(options, layout));
  return layout;
}

}  // namespace

Result<Geometry> plan_geometry(const PlanOptions& options) {
  TRY(check_options(options));
  return Geometry{.cluster_bits = static_cast<unsigned>(std::countr_zero(options.cluster_size)),
                  .refcount_order = static_cast<unsigned>(std::countr_zero(options.refcount_bits)),
                  .extended_l2 = options.extended_l2};
}

Result<std::size_t> plan_scratch_size(const PlanOptions& options) { return TRY(lay_out(options)).scratch(); }

Result<ImagePlan> plan_qcow2(const PlanOptions& options, MutableBytes scratch) {
  const Layout layout = TRY(lay_out(options));
  if (scratch.size() < layout.scratch()) {
    return invalid("scratch has " + std::to_string(scratch.size()) + " bytes, the plan needs " +
                   std::to_string(layout.scratch()));
  }
  const Header& header = layout.header;
  ImagePlan plan;
  ImagePlanBuilder builder(plan, scratch);
  builder.add(0, layout.head);
  const MutableBytes table = builder.add(header.refcount_table_offset, layout.table_bytes());
  for (std::uint64_t i = 0; i < layout.refcount_blocks; ++i) {
    store_be64(table.data() + i * 8, layout.blocks_offset() + (i << header.geometry.cluster_bits));
  }
  const MutableBytes counts = builder.add(layout.blocks_offset(), layout.refcount_bytes());
  for (std::uint64_t i = 0; i < layout.used_clusters; ++i) {
    store_refcount(counts.data(), header.geometry.refcount_order, i, 1);
  }
  if (layout.l1_bytes != 0) builder.add(header.l1_offset + layout.l1_bytes - 8, layout.l1_tail_bytes());
  return plan;
}

}  // namespace sluicebox::image::qcow2
