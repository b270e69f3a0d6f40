#include "image/ops/measure.h"

#include <algorithm>

#include "base/checked.h"
#include "image/formats/qcow2/measure.h"
#include "image/ops/image_chain.h"
#include "image/ops/map_walk.h"

namespace sluicebox::image {

namespace {

constexpr std::uint64_t kMeasuredSector = 512;
constexpr std::uint64_t kLongestMeasureQuestion = std::uint64_t{64} << 30;

struct MeasuredDisk {
  std::uint64_t size = 0, data = 0;  // `data` in whole clusters
};

// Each cluster that has data in it, counted once.
Result<MeasuredDisk> measure_source(const MeasureOptions& options, std::uint64_t cluster, OperationContext& context) {
  const ImageChain chain = TRY(open_image_chain(*options.source, options.source_format, context));
  MapWalk walk(chain.layers);
  MeasuredDisk disk{.size = chain.size()};
  if (options.format == DiskFormat::kRaw) return disk;
  for (std::uint64_t at = 0; at < disk.size;) {
    TRY(context.cancel.check());
    const MapExtent extent = TRY(walk.at(at, std::min(disk.size - at, kLongestMeasureQuestion)));
    const std::uint64_t end = extent.end();
    if (extent.zero) {
      at = end;
      continue;
    }
    const std::uint64_t whole_end = checked_align_up(end, cluster).value_or(end);
    disk.data += whole_end - align_down(at, cluster);
    at = whole_end;
  }
  return disk;
}

}  // namespace

Result<MeasuredSizes> measure_image(const MeasureOptions& options, OperationContext& context) {
  TRY(context.cancel.check());
  if (options.format != DiskFormat::kRaw && options.format != DiskFormat::kQcow2) {
    return Error(ErrorCode::kUnsupported,
                 std::string("format: the size of a ") + format_name(options.format) + " file is not measured")
        .advise("measure raw or qcow2");
  }
  const qcow2::Geometry geometry;  // as create makes it by default
  MeasuredDisk disk{.size = options.size};
  if (options.source) disk = TRY(measure_source(options, geometry.cluster(), context));
  if (options.format == DiskFormat::kQcow2) {
    const qcow2::FileSizes sizes = TRY(qcow2::measure_file(geometry, disk.size, disk.data));
    return MeasuredSizes{.required = sizes.required, .fully_allocated = sizes.fully_allocated};
  }
  const auto whole = checked_align_up(disk.size, kMeasuredSector);
  if (!whole) {
    return Error(ErrorCode::kInvalidArgument,
                 "size: " + std::to_string(disk.size) + " bytes are more than a file can hold");
  }
  return MeasuredSizes{.required = *whole, .fully_allocated = *whole};
}

}  // namespace sluicebox::image
