#include "image/ops/map_walk.h"

#include <algorithm>

namespace sluicebox::image {

bool MapExtent::continued_by(const MapExtent& next) const {
  return next.start == end() && next.depth == depth && next.present == present && next.zero == zero &&
         next.data == data && next.offset.has_value() == offset.has_value() &&
         (!offset || *offset + length == *next.offset);
}

Result<BlockStatus> MapWalk::layer_status(std::size_t depth, std::uint64_t offset, std::uint64_t length) {
  Cursor& cursor = cursors_[depth];
  if (offset < cursor.start || offset >= cursor.end) {
    const BlockStatus status = TRY(layers_[depth].block->status(offset, length));
    cursor.start = offset;
    cursor.end = offset + status.length;
    cursor.status = status;
  }
  BlockStatus status = cursor.status;
  status.length = std::min(length, cursor.end - offset);
  if (status.host_offset) *status.host_offset += offset - cursor.start;
  return status;
}

Status MapWalk::look_into_file(MapExtent& extent) {
  const Layer& layer = layers_[extent.depth];
  std::optional<bool>& maps_holes = cursors_[extent.depth].maps_holes;
  if (!maps_holes) maps_holes = TRY(layer.block->maps_holes());
  if (!*maps_holes) return {};
  const FileExtent found = TRY(layer.file->extent_at(*extent.offset, extent.length));
  extent.zero = !found.data;
  extent.length = found.length;
  return {};
}

Result<MapExtent> MapWalk::at(std::uint64_t offset, std::uint64_t length) {
  MapExtent extent{.start = offset, .length = length, .offset = std::nullopt};
  for (std::size_t depth = 0;; ++depth) {
    const BlockStatus status = TRY(layer_status(depth, offset, extent.length));
    extent.depth = depth;
    extent.length = status.length;
    if (status.mapping != Mapping::kUnallocated) {
      extent.present = true;
      extent.zero = status.mapping == Mapping::kZero;
      extent.data = status.mapping == Mapping::kData;
      extent.offset = status.host_offset;
      if (extent.data && extent.offset) TRY(look_into_file(extent));
      return extent;
    }
    // Where the layer below has ended, it is this one that reads as zeros.
    const bool ends = depth + 1 == layers_.size() || offset >= layers_[depth + 1].block->size();
    if (ends) {
      extent.zero = true;
      extent.offset = status.host_offset;
      return extent;
    }
    extent.length = std::min(extent.length, layers_[depth + 1].block->size() - offset);
  }
}

}  // namespace sluicebox::image
