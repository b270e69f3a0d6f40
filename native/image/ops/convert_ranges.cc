#include "image/ops/convert_ranges.h"

#include <algorithm>

#include "base/checked.h"
#include "image/salvaged_disk.h"

namespace sluicebox::image {

namespace {

constexpr std::uint64_t kLongestConvertRange = 64u << 20;
// One question's worth of metadata stays small, so that a cancel is heard in between.
constexpr std::uint64_t kLongestConvertQuestion = std::uint64_t{64} << 30;

std::vector<Block*> first_of(const std::vector<Block*>& layers, std::size_t count) {
  return {layers.begin(), layers.begin() + static_cast<std::ptrdiff_t>(count)};
}

}  // namespace

ConvertRanges::ConvertRanges(const ConvertLayers& layers, std::uint64_t size, std::uint64_t grain, bool everything,
                             const CancelToken& cancel)
    : own_(first_of(layers.source, layers.own_layers), size),
      source_(layers.source, size),
      backing_(layers.backing, size),
      own_layers_(layers.own_layers),
      size_(size),
      grain_(grain),
      shares_(layers.own_layers < layers.source.size()),
      stands_on_zeros_(layers.backing.empty()),
      everything_(everything),
      salvages_(layers.salvage),
      cancel_(cancel) {}

// One answer: whether source and backing are known to read the same there.
Result<ConvertRanges::Step> ConvertRanges::step(std::uint64_t length) {
  length = std::min(length, kLongestConvertQuestion);
  if (shares_) {
    const ChainView::Extent own = TRY(own_.status(at_, length));
    if (own.depth == own_layers_) return Step{.left_out = true, .length = own.length};
    length = own.length;
  }
  const ChainView::Extent before = TRY(source_.status(at_, length));
  if (stands_on_zeros_) return Step{.left_out = before.zero && !everything_, .length = before.length};
  if (!before.zero) return Step{.left_out = false, .length = before.length};
  Result<ChainView::Extent> after = backing_.status(at_, before.length);
  if (after.ok()) return Step{.left_out = after.value().zero, .length = after.value().length};
  if (!salvages_ || !is_damage(after.error())) return after.error();
  return Step{.left_out = false, .length = std::min(before.length, grain_)};
}

Result<std::optional<DiskRange>> ConvertRanges::next() {
  std::optional<DiskRange> range;
  while (at_ < size_) {
    TRY(cancel_.check());
    const std::uint64_t end = range ? range->offset + range->length : 0;
    if (at_ < end) {  // the rest of a grain that is taken whole
      at_ = end;
      continue;
    }
    const auto [left_out, length] = TRY(step(size_ - at_));
    if (left_out) {
      at_ += length;
      if (range && align_down(at_, grain_) > end) return range;
      continue;
    }
    const std::uint64_t first = align_down(at_, grain_);
    if (range && first > end) return range;
    const std::uint64_t part = std::min(length, kLongestConvertRange);
    if (!range) range = DiskRange{.offset = first, .length = 0};
    const std::uint64_t last = checked_align_up(at_ + part, grain_).value_or(size_);
    range->length = std::min(last, size_) - range->offset;
    at_ += part;
    if (range->length >= kLongestConvertRange) {
      at_ = std::max(at_, range->offset + range->length);
      return range;
    }
  }
  return range;
}

}  // namespace sluicebox::image
