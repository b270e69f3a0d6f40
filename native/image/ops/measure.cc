#include "image/ops/measure.h"

#include <algorithm>
#include <memory>
#include <variant>

#include "base/checked.h"
#include "image/formats/qcow2/measure.h"
#include "image/ops/image_chain.h"
#include "image/ops/map_walk.h"

namespace sluicebox::image {

namespace {

constexpr std::uint64_t kMeasuredSector = 512;
constexpr std::uint64_t kLongestMeasureQuestion = std::uint64_t{64} << 30;

Result<ImageChain> open_measured(const MeasureOptions& options, OperationContext& context) {
  ImageChain chain = TRY(open_image_chain(*options.source, options.source_format, reading(options.shared), context));
  std::unique_ptr<Block>& disk = chain.layers.front().block;
  if (options.snapshot) disk = TRY(disk->open_snapshot(*options.snapshot));
  return chain;
}

// What the clusters take that have data in them.
Result<std::uint64_t> data_in_clusters(const ImageChain& chain, std::uint64_t cluster, OperationContext& context) {
  MapWalk walk(chain.layers);
  std::uint64_t data = 0;
  for (std::uint64_t at = 0; at < chain.size();) {
    TRY(context.cancel.check());
    const MapExtent extent = TRY(walk.at(at, std::min(chain.size() - at, kLongestMeasureQuestion)));
    const std::uint64_t end = extent.end();
    if (extent.zero) {
      at = end;
      continue;
    }
    const std::uint64_t whole_end = checked_align_up(end, cluster).value_or(end);
    data += whole_end - align_down(at, cluster);
    at = whole_end;
  }
  return data;
}

Result<MeasuredSizes> measure_raw(const MeasureOptions& options, OperationContext& context) {
  const std::uint64_t size = options.source ? TRY(open_measured(options, context)).size() : *options.target.size;
  const auto whole = checked_align_up(size, kMeasuredSector);
  if (!whole) {
    return Error(ErrorCode::kInvalidArgument, "size: " + std::to_string(size) + " bytes are more than a file can hold");
  }
  return MeasuredSizes{.required = *whole, .fully_allocated = *whole};
}

Result<MeasuredSizes> measure_qcow2(const MeasureOptions& options, const Qcow2Create& format,
                                    OperationContext& context) {
  const qcow2::Geometry geometry = TRY(qcow2::plan_geometry(plan_options(format, 0)));
  const auto everything = [&](std::uint64_t size) { return geometry.clusters_for(size) << geometry.cluster_bits; };
  const bool allocated = format.preallocation == Preallocation::kFull || format.preallocation == Preallocation::kFalloc;
  std::uint64_t size = options.target.size.value_or(0);
  std::uint64_t data = allocated ? everything(size) : 0;
  std::optional<std::uint64_t> bitmap_bytes;
  if (options.source) {
    const ImageChain chain = TRY(open_measured(options, context));
    size = chain.size();
    data = allocated || options.target.backing ? everything(size)
                                               : TRY(data_in_clusters(chain, geometry.cluster(), context));
    const auto bitmaps = TRY(chain.layers.front().block->bitmaps());
    if (bitmaps && format.version >= 3) bitmap_bytes = qcow2::measure_bitmaps(geometry, size, *bitmaps);
  }
  const qcow2::FileSizes sizes = TRY(qcow2::measure_file(geometry, size, data));
  return MeasuredSizes{.required = sizes.required, .fully_allocated = sizes.fully_allocated, .bitmaps = bitmap_bytes};
}

}  // namespace

Result<MeasuredSizes> measure_image(const MeasureOptions& options, OperationContext& context) {
  TRY(context.cancel.check());
  if (!options.source && !options.target.size) {
    return Error(ErrorCode::kInvalidArgument, "size is required when there is no source to take it from");
  }
  if (const auto* format = std::get_if<Qcow2Create>(&options.target.format)) {
    return measure_qcow2(options, *format, context);
  }
  if (std::holds_alternative<RawCreate>(options.target.format)) return measure_raw(options, context);
  return Error(ErrorCode::kUnsupported, "format: the sizes of raw and qcow2 files alone are measured")
      .advise("measure raw or qcow2");
}

}  // namespace sluicebox::image
