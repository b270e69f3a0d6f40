#include "image/ops/differing_ranges.h"

#include <algorithm>

#include "base/checked.h"

namespace sluicebox::image {

namespace {

constexpr std::uint64_t kLongestRange = 64u << 20;
// One question's worth of metadata stays small (8 MiB at 64 KiB clusters), so that a cancel is heard in between.
constexpr std::uint64_t kLongestQuestion = std::uint64_t{64} << 30;

// One file in one format has one backing, so from the first layer that both chains hold, they hold the same ones.
std::pair<std::size_t, std::size_t> shared_tail(const std::vector<Layer>& old_chain,
                                                const std::vector<Layer>& new_chain) {
  for (std::size_t i = 0; i < old_chain.size(); ++i) {
    for (std::size_t j = 0; j < new_chain.size(); ++j) {
      if (old_chain[i].identity == new_chain[j].identity &&
          old_chain[i].block->format() == new_chain[j].block->format()) {
        return {i, j};
      }
    }
  }
  return {old_chain.size(), new_chain.size()};
}

}  // namespace

std::vector<Block*> blocks_of(const std::vector<Layer>& layers) {
  std::vector<Block*> blocks;
  blocks.reserve(layers.size());
  for (const Layer& layer : layers) blocks.push_back(layer.block.get());
  return blocks;
}

DifferingRanges::DifferingRanges(Block& overlay, const std::vector<Layer>& old_chain,
                                 const std::vector<Layer>& new_chain, const CancelToken& cancel)
    : overlay_(overlay),
      old_(blocks_of(old_chain), overlay.size()),
      new_(blocks_of(new_chain), overlay.size()),
      old_tail_(shared_tail(old_chain, new_chain).first),
      new_tail_(shared_tail(old_chain, new_chain).second),
      cancel_(cancel) {}

// Moves on to where the overlay has nothing; false at the end of the disk.
Result<bool> DifferingRanges::enter_unallocated_run() {
  while (position_ >= run_end_) {
    if (position_ >= overlay_.size()) return false;
    TRY(cancel_.check());
    const BlockStatus status = TRY(overlay_.status(position_, std::min(overlay_.size() - position_, kLongestQuestion)));
    if (status.mapping == Mapping::kUnallocated) {
      run_end_ = position_ + status.length;
    } else {
      position_ += status.length;
    }
  }
  return true;
}

bool DifferingRanges::same(const ChainView::Extent& before, const ChainView::Extent& after) const {
  if (before.zero && after.zero) return true;
  return before.depth >= old_tail_ && after.depth >= new_tail_ && before.depth - old_tail_ == after.depth - new_tail_;
}

Result<std::optional<DiskRange>> DifferingRanges::next() {
  const std::uint64_t unit = overlay_.allocation_unit();
  std::optional<DiskRange> range;
  while (TRY(enter_unallocated_run())) {
    TRY(cancel_.check());
    const ChainView::Extent before = TRY(old_.status(position_, std::min(run_end_ - position_, kLongestQuestion)));
    const ChainView::Extent after = TRY(new_.status(position_, before.length));
    const bool alike = same(before, after);
    const std::uint64_t step = alike ? after.length : std::min(after.length, kLongestRange);
    if (!alike) {
      const std::uint64_t first = align_down(position_, unit);
      const std::uint64_t last = checked_align_up(position_ + step, unit).value_or(overlay_.size());
      if (!range) range = DiskRange{.offset = first, .length = 0};
      const std::uint64_t end = range->offset + range->length;
      if (range->length != 0 && first > end) return range;
      range->length = std::min(last, overlay_.size()) - range->offset;
    }
    position_ += step;
    if (range && range->length >= kLongestRange) {
      position_ = std::max(position_, range->offset + range->length);
      return range;
    }
  }
  return range;
}

}  // namespace sluicebox::image
