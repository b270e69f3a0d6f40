#include <algorithm>

#include "image/chain.h"

namespace sluicebox::image {

namespace {

constexpr std::uint64_t kLookAhead = 16u << 20;

}  // namespace

ChainView::ChainView(std::vector<Block*> layers, std::uint64_t size)
    : layers_(std::move(layers)), cursors_(layers_.size()), size_(size) {}

// A layer's answer about [offset, ...), asked for up to `length` and remembered: while the layers above it are
// fragmented, a long answer of this one is used many times and its metadata walked once.
Result<BlockStatus> ChainView::layer_status(std::size_t depth, std::uint64_t offset, std::uint64_t length) {
  Cursor& cursor = cursors_[depth];
  if (offset < cursor.start || offset >= cursor.end) {
    const BlockStatus status = TRY(layers_[depth]->status(offset, length));
    cursor = {.start = offset, .end = offset + status.length, .mapping = status.mapping};
  }
  BlockStatus status;
  status.mapping = cursor.mapping;
  status.length = std::min(length, cursor.end - offset);
  return status;
}

// One answer, as long as the layers' own answers let it be.
Result<ChainView::Extent> ChainView::top_extent(std::uint64_t offset, std::uint64_t length) {
  Extent extent{.zero = true, .length = length, .depth = layers_.size()};
  for (std::size_t depth = 0; depth < layers_.size(); ++depth) {
    const std::uint64_t end = layers_[depth]->size();
    if (offset >= end) {  // past its end a layer reads as zeros, whatever is below
      extent.depth = depth;
      return extent;
    }
    extent.length = std::min(extent.length, end - offset);
    const BlockStatus status = TRY(layer_status(depth, offset, extent.length));
    extent.length = std::min(extent.length, status.length);
    if (status.mapping == Mapping::kUnallocated) continue;
    extent.zero = status.mapping == Mapping::kZero;
    extent.depth = depth;
    return extent;
  }
  return extent;
}

Result<ChainView::Extent> ChainView::status(std::uint64_t offset, std::uint64_t length) {
  if (offset >= size_ || length == 0) {
    return Error(ErrorCode::kInternal, "the status of nothing was asked for").at(offset);
  }
  length = std::min(length, size_ - offset);
  if (offset >= known_start_ && offset < known_end_) {
    return Extent{.zero = known_.zero, .length = std::min(length, known_end_ - offset), .depth = known_.depth};
  }
  Extent extent = TRY(top_extent(offset, length));
  while (extent.length < length) {
    // Damage further on is told to who comes there: what lies before it can be read.
    const Result<Extent> next = top_extent(offset + extent.length, length - extent.length);
    if (!next.ok() || next.value().zero != extent.zero || next.value().depth != extent.depth) break;
    extent.length += next.value().length;
  }
  known_ = extent;
  known_start_ = offset;
  known_end_ = offset + extent.length;
  return extent;
}

Status ChainView::read(std::uint64_t offset, MutableBytes out) {
  if (offset > size_ || out.size() > size_ - offset) {
    return Error(ErrorCode::kInternal, "a read past the end of the disk").at(offset);
  }
  while (!out.empty()) {
    // Asked for more than is read now: whoever reads on in order then asks the layers seldom.
    const Extent extent = TRY(status(offset, std::max<std::uint64_t>(out.size(), kLookAhead)));
    const MutableBytes part = out.first(std::min<std::uint64_t>(extent.length, out.size()));
    if (extent.zero) {
      std::ranges::fill(part, std::byte{0});
    } else {
      TRY(layers_[extent.depth]->read(offset, part));
    }
    offset += part.size();
    out = out.subspan(part.size());
  }
  return {};
}

}  // namespace sluicebox::image
