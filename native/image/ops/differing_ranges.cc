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
      old_(make_side(old_chain, shared_tail(old_chain, new_chain).first, overlay.size())),
      new_(make_side(new_chain, shared_tail(old_chain, new_chain).second, overlay.size())),
      cancel_(cancel) {}

DifferingRanges::Side DifferingRanges::make_side(const std::vector<Layer>& chain, std::size_t own_layers,
                                                 std::uint64_t size) {
  std::vector<Block*> whole = blocks_of(chain);
  std::vector<Block*> own(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(own_layers));
  return {.own_layers = own_layers, .own = ChainView(std::move(own), size), .whole = ChainView(std::move(whole), size)};
}

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

// Where both chains show their shared tail they are the same, whatever it holds: its metadata is not even looked at.
Result<DifferingRanges::Step> DifferingRanges::compare_status() {
  ChainView::Extent before = TRY(old_.own.status(position_, std::min(run_end_ - position_, kLongestQuestion)));
  ChainView::Extent after = TRY(new_.own.status(position_, before.length));
  const bool old_tail = old_.shows_tail(before);
  const bool new_tail = new_.shows_tail(after);
  if (old_tail && new_tail) return Step{.same = true, .length = after.length};
  if (old_tail) before = TRY(old_.whole.status(position_, after.length));
  if (new_tail) after = TRY(new_.whole.status(position_, after.length));
  return Step{.same = before.zero && after.zero, .length = std::min(before.length, after.length)};
}

Result<std::optional<DiskRange>> DifferingRanges::next() {
  const std::uint64_t unit = overlay_.allocation_unit();
  std::optional<DiskRange> range;
  while (TRY(enter_unallocated_run())) {
    TRY(cancel_.check());
    const auto [alike, shown] = TRY(compare_status());
    const std::uint64_t step = alike ? shown : std::min(shown, kLongestRange);
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
