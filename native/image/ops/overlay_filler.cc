#include "image/ops/overlay_filler.h"

#include <algorithm>

#include "base/checked.h"

namespace sluicebox::image {

Status OverlayFiller::fill(const ComparedWindow& window) {
  std::uint64_t place = 0;
  for (const DiskRange& range : window.ranges) {
    TRY(fill_range(window, range, place));
    place += range.length;
  }
  counts_.bytes_compared += window.length;
  counts_.clusters_compared += div_round_up(window.length, unit_);
  return {};
}

// `place` is where the range begins in the window.
Status OverlayFiller::fill_range(const ComparedWindow& window, DiskRange range, std::uint64_t place) {
  const Bytes bytes = window.before.bytes().subspan(place, range.length);
  const std::uint64_t first_unit = place / unit_;
  const std::uint64_t units = div_round_up(range.length, unit_);
  const auto end_of = [&](std::uint64_t unit) { return std::min((unit + 1) * unit_, range.length); };
  const auto differs = [&](std::uint64_t unit) { return window.differs[first_unit + unit]; };
  const auto is_zero = [&](std::uint64_t unit) {
    return all_zero(bytes.subspan(unit * unit_, end_of(unit) - unit * unit_));
  };
  for (std::uint64_t first = 0; first < units;) {
    if (!differs(first)) {
      ++first;
      continue;
    }
    const bool zeros = is_zero(first);
    std::uint64_t next = first + 1;
    while (next < units && differs(next) && is_zero(next) == zeros) ++next;
    const Bytes run = bytes.subspan(first * unit_, end_of(next - 1) - first * unit_);
    TRY(write_run(range.offset + first * unit_, run, zeros));
    counts_.clusters_copied += next - first;
    first = next;
  }
  return {};
}

Status OverlayFiller::write_run(std::uint64_t offset, Bytes data, bool zeros) {
  counts_.bytes_copied += data.size();
  if (!write_) return {};
  return zeros ? overlay_.write_zeros(offset, data.size()) : overlay_.write(offset, data);
}

}  // namespace sluicebox::image
