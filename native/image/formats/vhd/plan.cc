#include "image/formats/vhd/plan.h"

#include "base/checked.h"
#include "image/formats/vhd/dynamic_header.h"
#include "image/formats/vhd/footer.h"
#include "image/formats/vhd/parent.h"

namespace sluicebox::image::vhd {

namespace {

constexpr std::uint64_t kHeaderOffset = kFooterBytes;
constexpr std::uint64_t kTableOffset = kHeaderOffset + kHeaderBytes;

struct VhdLayout {
  Footer footer;
  DynamicHeader header;
  std::uint64_t table_bytes = 0;      // whole sectors
  std::optional<WrittenName> parent;  // of a differencing one
  std::uint32_t name_bytes() const { return parent ? kMaxNameBytes : 0; }
  std::size_t scratch() const {
    if (footer.type == DiskType::kFixed) return kFooterBytes;
    return 2 * kFooterBytes + kHeaderBytes + table_bytes + name_bytes();
  }
};

Error bad_option(std::string text) { return Error(ErrorCode::kInvalidArgument, std::move(text)); }

Status check_options(const PlanOptions& options) {
  if (options.virtual_size % kSectorBytes != 0) {
    return bad_option("size must be a multiple of 512, got " + std::to_string(options.virtual_size));
  }
  if (options.virtual_size > kMaxDiskBytes) {
    return bad_option("size: " + std::to_string(options.virtual_size) + " bytes are more than the 2040 GiB of a vhd")
        .advise("create a vhdx");
  }
  // Others look for a footer in front first, and would take this one for it.
  if (options.fixed && options.virtual_size == 0) return bad_option("size: a fixed vhd holds at least one sector");
  if (options.fixed) return {};
  if (!is_power_of_two(options.block_size) || options.block_size < kMinBlockBytes ||
      options.block_size > kMaxBlockBytes) {
    return bad_option("blockSize must be a power of two from 512 KiB to 256 MiB, got " +
                      std::to_string(options.block_size));
  }
  return {};
}

Status check_parent(const PlanOptions& options) {
  if (options.parent_path.empty()) {
    return is_nil(options.parent_id) ? ok_status() : bad_option("backing: the id of a parent without its path");
  }
  if (options.fixed) {
    return Error(ErrorCode::kUnsupported, "backing: a fixed vhd has data everywhere, and no backing")
        .advise("use the subformat dynamic");
  }
  if (is_nil(options.parent_id)) return bad_option("backing: its id is missing");
  return {};
}

// Behind the table of blocks.
Status name_parent(const PlanOptions& options, VhdLayout& layout) {
  layout.parent = TRY(write_parent_path(options.parent_path));
  layout.header.parent_id = options.parent_id;
  layout.header.parent_time = options.parent_time;
  set_parent_name(layout.header, options.parent_path, *layout.parent, kTableOffset + layout.table_bytes);
  return {};
}

Result<VhdLayout> lay_out(const PlanOptions& options) {
  TRY(check_options(options));
  TRY(check_parent(options));
  const bool differs = !options.parent_path.empty();
  VhdLayout layout;
  Footer& footer = layout.footer;
  footer.type = options.fixed ? DiskType::kFixed : differs ? DiskType::kDifferencing : DiskType::kDynamic;
  footer.data_offset = options.fixed ? kNoOffset : kHeaderOffset;
  footer.timestamp = options.timestamp;
  footer.creator = "qem2";
  footer.original_size = footer.current_size = options.virtual_size;
  footer.geometry = kLargestGeometry;
  footer.id = options.id;
  store_be32(footer.raw.data() + footer_at::kCreatorVersion, 0x00050003);  // of Virtual PC 2007
  std::memcpy(footer.raw.data() + footer_at::kCreatorHost, "Wi2k", 4);
  serialize_footer(footer);
  if (options.fixed) return layout;

  DynamicHeader& header = layout.header;
  header.table_offset = kTableOffset;
  header.block_size = static_cast<std::uint32_t>(options.block_size);
  header.max_entries = static_cast<std::uint32_t>(div_round_up(options.virtual_size, options.block_size));
  layout.table_bytes = div_round_up(header.table_bytes(), kSectorBytes) * kSectorBytes;
  if (differs) TRY(name_parent(options, layout));
  return layout;
}

}  // namespace

Result<std::size_t> plan_scratch_size(const PlanOptions& options) { return TRY(lay_out(options)).scratch(); }

Result<ImagePlan> plan_vhd(const PlanOptions& options, MutableBytes scratch) {
  const VhdLayout layout = TRY(lay_out(options));
  if (scratch.size() < layout.scratch()) {
    return bad_option("scratch has " + std::to_string(scratch.size()) + " bytes, the plan needs " +
                      std::to_string(layout.scratch()));
  }
  ImagePlan plan;
  ImagePlanBuilder builder(plan, scratch);
  if (options.fixed) {
    builder.add(options.virtual_size, layout.footer.raw);
    return plan;
  }
  builder.add(0, layout.footer.raw);
  serialize_dynamic_header(layout.header, builder.add(kHeaderOffset, kHeaderBytes));
  if (layout.table_bytes != 0) {
    const MutableBytes table = builder.add(kTableOffset, layout.table_bytes);
    std::memset(table.data(), 0xff, table.size());  // every block absent, and what pads the last sector as well
  }
  const std::uint64_t table_end = kTableOffset + layout.table_bytes;
  if (layout.parent) std::ranges::copy(layout.parent->bytes, builder.add(table_end, layout.name_bytes()).begin());
  builder.add(table_end + layout.name_bytes(), layout.footer.raw);
  return plan;
}

}  // namespace sluicebox::image::vhd
