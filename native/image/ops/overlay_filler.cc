#include "image/ops/overlay_filler.h"

#include <algorithm>
#include <cstring>

#include "base/checked.h"

namespace sluicebox::image {

namespace {

// Large enough that a system call costs nothing beside its copying, small enough for the last-level cache, and no
// smaller than the largest cluster.
constexpr std::uint64_t kWindow = 2u << 20;

}  // namespace

OverlayFiller::OverlayFiller(Block& overlay, ChainView old_view, ChainView new_view, bool write)
    : overlay_(overlay),
      old_view_(std::move(old_view)),
      new_view_(std::move(new_view)),
      write_(write),
      unit_(overlay.allocation_unit()),
      old_(std::max(kWindow, unit_)),
      new_(old_.size()),
      differs_(old_.size() / unit_) {}

Status OverlayFiller::fill(DiskRange range) {
  differs_.assign(differs_.size(), false);
  TRY(find_differences(range));
  counts_.bytes_compared += range.length;
  counts_.clusters_compared += div_round_up(range.length, unit_);
  return write_differences(range);
}

Status OverlayFiller::find_differences(DiskRange range) {
  const MutableBytes before = old_.bytes().first(range.length);
  const MutableBytes after = new_.bytes().first(range.length);
  TRY(old_view_.read(range.offset, before));
  TRY(new_view_.read(range.offset, after));
  if (std::memcmp(before.data(), after.data(), range.length) == 0) return {};
  for (std::uint64_t at = 0; at < range.length; at += unit_) {
    const std::uint64_t part = std::min(unit_, range.length - at);
    differs_[at / unit_] = std::memcmp(before.data() + at, after.data() + at, part) != 0;
  }
  return {};
}

Status OverlayFiller::write_differences(DiskRange range) {
  const auto end_of = [&](std::uint64_t unit) { return std::min((unit + 1) * unit_, range.length); };
  const auto is_zero = [&](std::uint64_t unit) {
    return all_zero(old_.bytes().subspan(unit * unit_, end_of(unit) - unit * unit_));
  };
  const std::uint64_t units = div_round_up(range.length, unit_);
  for (std::uint64_t first = 0; first < units;) {
    if (!differs_[first]) {
      ++first;
      continue;
    }
    const bool zeros = is_zero(first);
    std::uint64_t next = first + 1;
    while (next < units && differs_[next] && is_zero(next) == zeros) ++next;
    TRY(write_run(range, first * unit_, end_of(next - 1), zeros));
    counts_.clusters_copied += next - first;
    first = next;
  }
  return {};
}

Status OverlayFiller::write_run(DiskRange range, std::uint64_t begin, std::uint64_t end, bool zeros) {
  counts_.bytes_copied += end - begin;
  if (!write_) return {};
  if (zeros) return overlay_.write_zeros(range.offset + begin, end - begin);
  return overlay_.write(range.offset + begin, old_.bytes().subspan(begin, end - begin));
}

}  // namespace sluicebox::image
