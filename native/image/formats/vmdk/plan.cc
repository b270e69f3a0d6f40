#include "image/formats/vmdk/plan.h"

#include <algorithm>
#include <cstdio>

#include "image/formats/vmdk/descriptor.h"
#include "image/formats/vmdk/header.h"
#include "image/formats/vmdk/stream_layout.h"

namespace sluicebox::image::vmdk {

namespace {

Error refused(std::string text) { return Error(ErrorCode::kInvalidArgument, std::move(text)); }

bool is_flat(Subformat subformat) {
  return subformat == Subformat::kMonolithicFlat || subformat == Subformat::kTwoGbMaxExtentFlat;
}
bool has_files_beside(Subformat subformat) {
  return is_flat(subformat) || subformat == Subformat::kTwoGbMaxExtentSparse;
}

Status check_plan_options(const PlanOptions& options) {
  if (options.virtual_size == 0) return refused("size: a vmdk image has one sector at least");
  if (options.virtual_size % kSectorBytes != 0) {
    return refused("size must be a multiple of 512, got " + std::to_string(options.virtual_size));
  }
  if (!is_power_of_two(options.grain_size) || options.grain_size < kMinNewGrain || options.grain_size > kMaxNewGrain) {
    return refused("grainSize must be a power of two from 4096 to 65536, got " + std::to_string(options.grain_size));
  }
  if (options.name.empty() || !quotable(options.name)) {
    return refused("path: a vmdk descriptor cannot hold a name with a quote or a control character in it");
  }
  if (has_files_beside(options.subformat) && options.name.find(':') != std::string::npos) {
    return refused("path: other readers take names of files with a colon in them for protocols");
  }
  return {};
}

Status check_parent(const PlanOptions& options) {
  if (options.parent_hint.empty()) {
    return options.parent_cid == kNoParent ? ok_status() : refused("backing: a content id without a path");
  }
  if (is_flat(options.subformat)) {
    return Error(ErrorCode::kUnsupported, std::string("backing: ") + subformat_name(options.subformat) +
                                              " images have data everywhere, and no backing")
        .advise("use monolithicSparse or twoGbMaxExtentSparse");
  }
  if (options.parent_cid == kNoParent) return refused("backing: its content id is missing, or says that there is none");
  if (options.parent_hint.size() > kMaxParentHint) {
    return refused("backing: the path has " + std::to_string(options.parent_hint.size()) +
                   " bytes, at most 1023 are stored");
  }
  if (!quotable(options.parent_hint)) {
    return refused("backing: a vmdk descriptor cannot hold a path with a quote or a control character in it");
  }
  return {};
}

SparseHeader sparse_header(std::uint64_t sectors, std::uint64_t grain, bool with_descriptor) {
  SparseHeader header;
  header.geometry = {.capacity = sectors, .grain = grain};
  if (with_descriptor) {
    header.descriptor_offset = kDescriptorSector;
    header.descriptor_sectors = kDescriptorSectors;
  }
  const Geometry& geometry = header.geometry;
  header.redundant_directory = kDescriptorSector + kDescriptorSectors;
  const std::uint64_t tables = geometry.directory_sectors() + geometry.tables() * kTableSectors;
  header.directory = header.redundant_directory + tables;
  header.overhead = div_round_up(header.directory + tables, grain) * grain;
  return header;
}

// What there is to write, before its bytes are laid into the scratch buffer.
struct Shape {
  std::string descriptor;
  std::uint64_t sectors = 0, grain = 0;
  std::uint64_t extents = 0;  // files beside
  std::uint64_t last = 0;     // sectors of the last one
};

DescriptorParts descriptor_parts(const PlanOptions& options, const Shape& shape) {
  DescriptorParts parts{.cid = options.cid,
                        .parent_cid = options.parent_cid,
                        .create_type = subformat_name(options.subformat),
                        .parent_hint = options.parent_hint,
                        .extents = {},
                        .adapter = adapter_name(options.adapter)};
  if (shape.extents == 0) {
    parts.extents.push_back({.sectors = shape.sectors, .kind = ExtentKind::kSparse, .name = options.name});
  }
  for (std::uint64_t i = 0; i < shape.extents; ++i) {
    parts.extents.push_back({.sectors = i + 1 == shape.extents ? shape.last : kSplitSectors,
                             .kind = is_flat(options.subformat) ? ExtentKind::kFlat : ExtentKind::kSparse,
                             .name = extent_file_name(options, i)});
  }
  return parts;
}

Result<Shape> shape_of(const PlanOptions& options) {
  TRY(check_plan_options(options));
  TRY(check_parent(options));
  Shape shape;
  shape.sectors = options.virtual_size / kSectorBytes;
  shape.grain = options.grain_size / kSectorBytes;
  if (shape.sectors > kMaxSectors) return refused("size: more than a file can hold");
  if (options.subformat == Subformat::kMonolithicFlat) {
    shape.extents = 1;
    shape.last = shape.sectors;
  } else if (has_files_beside(options.subformat)) {
    shape.extents = div_round_up(shape.sectors, kSplitSectors);
    shape.last = shape.sectors - (shape.extents - 1) * kSplitSectors;
    if (shape.extents > kMaxExtents) return refused("size: a split image has at most 1024 files of 2 GiB");
  } else {
    // Written full, the file must still be one that its tables can name.
    const SparseHeader header = sparse_header(shape.sectors, shape.grain, true);
    const std::uint64_t full = header.overhead + header.geometry.grains() * shape.grain;
    if (full > kMaxFileSectors) return refused("size: a sparse vmdk file has at most 2 TiB, its tables included");
  }
  shape.descriptor = build_descriptor(descriptor_parts(options, shape));
  if (shape.extents == 0 && shape.descriptor.size() > kDescriptorSectors * kSectorBytes) {
    return refused("backing: the path leaves no room in the descriptor");
  }
  return shape;
}

// Hands out the scratch buffer front to back; without one it only counts.
class PlanBuilder {
 public:
  explicit PlanBuilder(MutableBytes scratch) : scratch_(scratch) {}

  void put(FilePlan& file, std::uint64_t offset, Bytes bytes) {
    const MutableBytes place = take(file, offset, bytes.size());
    if (!place.empty()) std::memcpy(place.data(), bytes.data(), bytes.size());
  }
  // A directory: where each of its tables lies, in sectors.
  void put_directory(FilePlan& file, std::uint64_t sector, const Geometry& geometry) {
    const MutableBytes place = take(file, sector * kSectorBytes, geometry.tables() * 4);
    const std::uint64_t first = sector + geometry.directory_sectors();
    for (std::uint64_t i = 0; i * 4 < place.size(); ++i) {
      store_le32(place.data() + i * 4, static_cast<std::uint32_t>(first + i * kTableSectors));
    }
  }
  void put_zeros(FilePlan& file, std::uint64_t offset, std::size_t length) { take(file, offset, length); }

  std::size_t used() const { return used_; }

 private:
  MutableBytes take(FilePlan& file, std::uint64_t offset, std::size_t length) {
    used_ += length;
    file.total_metadata_bytes += length;
    file.minimum_file_size = std::max(file.minimum_file_size, offset + length);
    if (scratch_.size() < length) {  // it only counts
      scratch_ = {};
      return {};
    }
    const MutableBytes bytes = scratch_.first(length);
    scratch_ = scratch_.subspan(length);
    std::memset(bytes.data(), 0, bytes.size());
    file.writes[file.write_count++] = {offset, bytes};
    return bytes;
  }

  MutableBytes scratch_;
  std::size_t used_ = 0;
};

void plan_sparse(PlanBuilder& builder, FilePlan& file, const SparseHeader& header, const std::string& descriptor) {
  builder.put(file, 0, serialize_header(header));
  if (!descriptor.empty()) builder.put(file, kDescriptorSector * kSectorBytes, as_bytes(descriptor));
  builder.put_directory(file, header.redundant_directory, header.geometry);
  builder.put_directory(file, header.directory, header.geometry);
  // The tables are zeros. The last sector before the grains gives the file its length.
  builder.put_zeros(file, (header.overhead - 1) * kSectorBytes, kSectorBytes);
}

// An empty stream: no grains, no tables, a directory that says so.
void plan_stream(PlanBuilder& builder, FilePlan& file, const Shape& shape) {
  const SparseHeader header = stream_header({.capacity = shape.sectors, .grain = shape.grain});
  builder.put(file, 0, serialize_header(header));
  builder.put(file, kDescriptorSector * kSectorBytes, as_bytes(shape.descriptor));
  const std::uint64_t directory = header.geometry.directory_sectors();
  std::uint64_t sector = header.overhead;
  builder.put(file, sector * kSectorBytes, marker_sector(directory, MarkerType::kDirectory));
  ++sector;
  builder.put_zeros(file, sector * kSectorBytes, directory * kSectorBytes);
  SparseHeader footer = header;
  footer.directory = sector;
  sector += directory;
  builder.put(file, sector * kSectorBytes, marker_sector(1, MarkerType::kFooter));
  builder.put(file, (sector + 1) * kSectorBytes, serialize_header(footer));
  builder.put(file, (sector + 2) * kSectorBytes, marker_sector(0, MarkerType::kEndOfStream));
}

Plan lay_out_vmdk(const PlanOptions& options, const Shape& shape, PlanBuilder& builder) {
  Plan plan;
  plan.extents = shape.extents;
  switch (options.subformat) {
    case Subformat::kMonolithicSparse:
      plan_sparse(builder, plan.image, sparse_header(shape.sectors, shape.grain, true), shape.descriptor);
      return plan;
    case Subformat::kStreamOptimized:
      plan_stream(builder, plan.image, shape);
      return plan;
    case Subformat::kTwoGbMaxExtentSparse:
      if (shape.extents > 1) plan_sparse(builder, plan.extent, sparse_header(kSplitSectors, shape.grain, false), "");
      plan_sparse(builder, plan.last_extent, sparse_header(shape.last, shape.grain, false), "");
      break;
    case Subformat::kMonolithicFlat:
    case Subformat::kTwoGbMaxExtentFlat:
      plan.extent.data_bytes = kSplitSectors * kSectorBytes;
      plan.last_extent.data_bytes = shape.last * kSectorBytes;
      break;
  }
  builder.put(plan.image, 0, as_bytes(shape.descriptor));
  return plan;
}

}  // namespace

const char* subformat_name(Subformat subformat) {
  switch (subformat) {
    case Subformat::kMonolithicSparse:
      return "monolithicSparse";
    case Subformat::kMonolithicFlat:
      return "monolithicFlat";
    case Subformat::kTwoGbMaxExtentSparse:
      return "twoGbMaxExtentSparse";
    case Subformat::kTwoGbMaxExtentFlat:
      return "twoGbMaxExtentFlat";
    case Subformat::kStreamOptimized:
      return "streamOptimized";
  }
  return "unknown";
}

const char* adapter_name(Adapter adapter) {
  switch (adapter) {
    case Adapter::kIde:
      return "ide";
    case Adapter::kLsiLogic:
      return "lsilogic";
    case Adapter::kBusLogic:
      return "buslogic";
  }
  return "unknown";
}

std::string extent_file_name(const PlanOptions& options, std::uint64_t index) {
  const std::size_t dot = options.name.rfind('.');
  const std::string stem = options.name.substr(0, dot);
  const std::string suffix = dot == std::string::npos ? "" : options.name.substr(dot);
  if (options.subformat == Subformat::kMonolithicFlat) return stem + "-flat" + suffix;
  const char kind = options.subformat == Subformat::kTwoGbMaxExtentFlat ? 'f' : 's';
  std::string number = std::to_string(index + 1);
  if (number.size() < 3) number.insert(0, 3 - number.size(), '0');
  return stem + "-" + kind + number + suffix;
}

Result<std::size_t> plan_scratch_size(const PlanOptions& options) {
  const Shape shape = TRY(shape_of(options));
  PlanBuilder counter({});
  lay_out_vmdk(options, shape, counter);
  return counter.used();
}

Result<Plan> plan_vmdk(const PlanOptions& options, MutableBytes scratch) {
  const Shape shape = TRY(shape_of(options));
  PlanBuilder counter({});
  lay_out_vmdk(options, shape, counter);
  if (scratch.size() < counter.used()) {
    return refused("scratch has " + std::to_string(scratch.size()) + " bytes, the plan needs " +
                   std::to_string(counter.used()));
  }
  PlanBuilder builder(scratch);
  return lay_out_vmdk(options, shape, builder);
}

}  // namespace sluicebox::image::vmdk
