#include "image/formats/vhdx/plan.h"

#include "base/checked.h"
#include "image/formats/vhdx/block_table.h"
#include "image/formats/vhdx/header.h"
#include "image/formats/vhdx/metadata.h"
#include "image/formats/vhdx/region_table.h"
#include "image/utf16.h"

namespace sluicebox::image::vhdx {

namespace {

constexpr std::string_view kCreatorName = "Sluicebox";
constexpr std::uint64_t kLogOffset = kHeaderSectionBytes;
constexpr std::size_t kTailBytes = 512;  // the file's last, so that it is as long as its regions and blocks

// In this order: log, table of blocks, metadata, and the blocks of a fixed disk.
struct VhdxLayout {
  std::vector<std::byte> signature;
  Header headers[2];
  RegionTable regions;
  Metadata metadata;
  TableShape shape;
  std::uint64_t data_offset = 0, file_bytes = 0;
  std::vector<std::byte> metadata_table, metadata_items;

  std::size_t table_bytes() const { return metadata.fixed ? shape.entries() * 8 : 0; }
  std::size_t scratch() const {
    return signature.size() + 2 * kHeaderUsedBytes + 2 * kRegionTableUsedBytes + metadata_table.size() +
           metadata_items.size() + table_bytes() + kTailBytes;
  }
};

Error bad_option(std::string text) { return Error(ErrorCode::kInvalidArgument, std::move(text)); }

Status check_options(const PlanOptions& options, std::uint64_t block_size) {
  if (options.sector_size != 512 && options.sector_size != 4096) return bad_option("sectorSize must be 512 or 4096");
  if (options.virtual_size % options.sector_size != 0) {
    return bad_option("size must be a multiple of " + std::to_string(options.sector_size) + ", got " +
                      std::to_string(options.virtual_size));
  }
  // Others reckon the table of an empty disk to have 2^32 entries.
  if (options.virtual_size == 0) return bad_option("size: a vhdx holds at least one sector");
  if (options.virtual_size > kMaxDiskBytes) {
    return bad_option("size: " + std::to_string(options.virtual_size) + " bytes are more than the 64 TiB of a vhdx");
  }
  if (!is_power_of_two(block_size) || block_size < kMinBlockBytes || block_size > kMaxBlockBytes) {
    return bad_option("blockSize must be a power of two from 1 MiB to 256 MiB, got " + std::to_string(block_size));
  }
  if (options.log_size == 0 || options.log_size % kMiB != 0 || options.log_size > kMaxLogBytes) {
    return bad_option("logSize must be a multiple of 1 MiB, at most 64 MiB, got " + std::to_string(options.log_size));
  }
  return {};
}

Result<std::optional<ParentNames>> names_of_parent(const PlanOptions& options) {
  const bool linked = !is_nil(options.parent_link);
  if (options.parent_path.empty()) {
    if (linked) return bad_option("backing: the id of a parent without its path");
    return std::optional<ParentNames>();
  }
  if (options.fixed) {
    return Error(ErrorCode::kUnsupported, "backing: a fixed vhdx has data everywhere, and no backing")
        .advise("use the subformat dynamic");
  }
  if (!linked) return bad_option("backing: its id is missing");
  return std::optional(TRY(parent_names(options.parent_path, options.parent_link)));
}

void place_regions(const PlanOptions& options, VhdxLayout& layout) {
  Region& table = layout.regions.table;
  Region& metadata = layout.regions.metadata;
  table.offset = kLogOffset + options.log_size;
  const std::uint64_t mebibytes = std::max<std::uint64_t>(1, div_round_up(layout.shape.entries() * 8, kMiB));
  table.length = static_cast<std::uint32_t>(mebibytes * kMiB);
  metadata.offset = table.end();
  metadata.length = kMiB;
  layout.data_offset = metadata.end();
  layout.file_bytes = layout.data_offset;
  if (options.fixed) layout.file_bytes += layout.shape.blocks * layout.metadata.block_size;
}

void write_headers(const PlanOptions& options, VhdxLayout& layout) {
  for (std::uint64_t i = 0; i < 2; ++i) {
    Header& header = layout.headers[i];
    header.sequence = i + 1;
    header.file_write = options.file_write;
    header.data_write = options.data_write;
    header.log_offset = kLogOffset;
    header.log_length = static_cast<std::uint32_t>(options.log_size);
  }
}

Result<VhdxLayout> lay_out(const PlanOptions& options) {
  const std::uint64_t block_size =
      options.block_size == 0 ? default_block_size(options.virtual_size) : options.block_size;
  TRY(check_options(options, block_size));
  VhdxLayout layout;
  layout.metadata.block_size = static_cast<std::uint32_t>(block_size);
  layout.metadata.fixed = options.fixed;
  layout.metadata.disk_bytes = options.virtual_size;
  layout.metadata.page83 = options.page83;
  layout.metadata.logical_sector = layout.metadata.physical_sector = options.sector_size;
  layout.metadata.parent = TRY(names_of_parent(options));
  layout.metadata.has_parent = layout.metadata.parent.has_value();
  layout.shape = TableShape(options.virtual_size, block_size, options.sector_size, layout.metadata.has_parent);
  if (layout.shape.entries() * 8 > kMaxNewTableBytes) {
    return bad_option("blockSize: blocks of " + std::to_string(block_size) + " bytes need a table above 24 MiB")
        .advise("use a larger blockSize");
  }
  place_regions(options, layout);
  write_headers(options, layout);
  layout.signature.resize(kFileSignatureBytes);
  std::memcpy(layout.signature.data(), kFileSignature, kFileSignatureBytes);
  const auto creator = utf16_of_utf8(kCreatorName, /*big_endian=*/false);
  if (creator) layout.signature.insert(layout.signature.end(), creator->begin(), creator->end());
  layout.metadata_table = serialize_metadata_table(layout.metadata);
  layout.metadata_items = serialize_metadata_items(layout.metadata);
  return layout;
}

}  // namespace

std::uint64_t default_block_size(std::uint64_t virtual_size) {
  if (virtual_size <= std::uint64_t{1} << 30) return 8 * kMiB;
  if (virtual_size <= std::uint64_t{100} << 30) return 16 * kMiB;
  if (virtual_size <= std::uint64_t{32} << 40) return 32 * kMiB;
  return 64 * kMiB;
}

Result<std::size_t> plan_scratch_size(const PlanOptions& options) { return TRY(lay_out(options)).scratch(); }

Result<ImagePlan> plan_vhdx(const PlanOptions& options, MutableBytes scratch) {
  const VhdxLayout layout = TRY(lay_out(options));
  if (scratch.size() < layout.scratch()) {
    return bad_option("scratch has " + std::to_string(scratch.size()) + " bytes, the plan needs " +
                      std::to_string(layout.scratch()));
  }
  ImagePlan plan;
  ImagePlanBuilder builder(plan, scratch);
  builder.add(0, Bytes(layout.signature));
  for (std::size_t i = 0; i < 2; ++i) builder.add(kHeaderOffsets[i], Bytes(serialize_header(layout.headers[i])));
  for (const std::uint64_t at : kRegionTableOffsets) builder.add(at, Bytes(serialize_region_table(layout.regions)));
  builder.add(layout.regions.metadata.offset, Bytes(layout.metadata_table));
  builder.add(layout.regions.metadata.offset + kMetadataTableBytes, Bytes(layout.metadata_items));
  if (layout.table_bytes() != 0) {
    const MutableBytes table = builder.add(layout.regions.table.offset, layout.table_bytes());
    for (std::uint64_t block = 0; block < layout.shape.blocks; ++block) {
      const std::uint64_t at = layout.data_offset + block * layout.metadata.block_size;
      store_le64(table.data() + layout.shape.entry_of_block(block) * 8, entry_of(BlockState::kPresent, at));
    }
  }
  builder.add(layout.file_bytes - kTailBytes, kTailBytes);
  return plan;
}

}  // namespace sluicebox::image::vhdx
