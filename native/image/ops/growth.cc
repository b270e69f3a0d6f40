#include "image/ops/growth.h"

#include <algorithm>

#include "base/checked.h"
#include "image/chain.h"

namespace sluicebox::image {

namespace {

constexpr std::uint64_t kMostAtOnce = 64u << 20;  // between two looks at the cancel token

// What the growth covers, in bytes of the disk.
struct Gain {
  std::uint64_t begin = 0, end = 0;
};

// The unit that the disk ends in, if it ends inside one: what is written up to the end is padded with zeros behind it.
// Otherwise it would show what its cluster holds there, or what the backing does.
Status pad_last_unit(Block& image, const std::vector<Block*>& below, const Gain& gain) {
  const std::uint64_t start = align_down(gain.begin, image.allocation_unit());
  if (start == gain.begin) return {};
  const Mapping mapping = TRY(image.status(start, gain.begin - start)).mapping;
  const bool shows_backing = !below.empty() && below.front()->size() > gain.begin;
  if (mapping == Mapping::kZero || (mapping == Mapping::kUnallocated && !shows_backing)) return {};
  std::vector<Block*> layers = {&image};
  layers.insert(layers.end(), below.begin(), below.end());
  std::vector<std::byte> bytes(gain.begin - start);
  TRY(ChainView(std::move(layers), gain.begin).read(start, bytes));
  return image.write(start, bytes);
}

// Zeros over what a larger backing has there; where that reads as zeros itself, nothing is needed.
Status hide_backing(Block& image, const std::vector<Block*>& below, const Gain& gain, ProgressSink& progress,
                    const CancelToken& cancel) {
  const std::uint64_t unit = image.allocation_unit();
  const std::uint64_t room = checked_align_up(gain.end, unit).value_or(gain.end);
  std::uint64_t at = std::min(checked_align_up(gain.begin, unit).value_or(gain.end), gain.end);
  const std::uint64_t end = below.empty() ? at : std::min(gain.end, below.front()->size());
  ChainView backing(below, end);
  while (at < end) {
    TRY(cancel.check());
    progress.report({.phase = "zero", .done = at - gain.begin, .total = gain.end - gain.begin});
    const ChainView::Extent extent = TRY(backing.status(at, std::min(end - at, kMostAtOnce)));
    const std::uint64_t next = at + extent.length;
    if (extent.zero) {
      at = next;
      continue;
    }
    const std::uint64_t first = align_down(at, unit);
    const std::uint64_t last = std::min(checked_align_up(next, unit).value_or(room), room);
    TRY(image.write_zeros(first, last - first));
    at = std::max(next, last);
  }
  return {};
}

}  // namespace

Status prepare_growth(Block& image, const std::vector<Block*>& below, std::uint64_t size, ProgressSink& progress,
                      const CancelToken& cancel) {
  const Gain gain{.begin = image.size(), .end = size};
  TRY(image.make_room(size));
  TRY(pad_last_unit(image, below, gain));
  TRY(hide_backing(image, below, gain, progress, cancel));
  return image.flush();
}

}  // namespace sluicebox::image
