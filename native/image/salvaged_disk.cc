#include "image/salvaged_disk.h"

#include <algorithm>
#include <iterator>

#include "base/checked.h"
#include "image/block_range.h"

namespace sluicebox::image {

namespace {

constexpr std::uint64_t kSector = 512;
constexpr std::uint64_t kUnknownAtOnce = 64u << 10;  // what is taken for data where status() fails
constexpr std::size_t kMostParts = 1000;

}  // namespace

// In halves, for damage is seldom, and then often of many sectors in a row.
Status SalvagedDisk::read(std::uint64_t offset, MutableBytes out) {
  TRY(check_range(offset, out.size(), size()));
  TRY(cancel_.check());
  Status whole = view_.read(offset, out);
  if (whole.ok() || !is_damage(whole.error())) return whole;
  if (out.size() <= kSector) {
    std::ranges::fill(out, std::byte{0});
    note(offset, out.size());
    return {};
  }
  const std::size_t half = std::max(kSector, align_down(out.size() / 2, kSector));
  TRY(read(offset, out.first(half)));
  return read(offset + half, out.subspan(half));
}

Result<BlockStatus> SalvagedDisk::status(std::uint64_t offset, std::uint64_t length) {
  TRY(check_range(offset, 1, size()));
  const Result<ChainView::Extent> extent = view_.status(offset, length);
  if (extent.ok()) return status_of(extent.value());
  if (!is_damage(extent.error())) return extent.error();
  BlockStatus status;
  status.mapping = Mapping::kData;
  status.length = std::min({length, size() - offset, kUnknownAtOnce - offset % kUnknownAtOnce});
  return status;
}

void SalvagedDisk::note(std::uint64_t start, std::uint64_t length) {
  const MutexLock lock(mutex_);
  lost_bytes_ += length;
  std::uint64_t end = start + length;
  if (const auto next = lost_.find(end); next != lost_.end()) {
    end = next->second;
    lost_.erase(next);
  }
  const auto after = lost_.lower_bound(start);
  if (after != lost_.begin() && std::prev(after)->second == start) {
    std::prev(after)->second = end;
  } else {
    lost_.emplace(start, end);
    if (lost_.size() > kMostParts) lost_.erase(std::prev(lost_.end()));
  }
}

UnreadableParts SalvagedDisk::unreadable() const {
  const MutexLock lock(mutex_);
  UnreadableParts unreadable{.bytes = lost_bytes_, .parts = {}};
  unreadable.parts.reserve(lost_.size());
  for (const auto& [start, end] : lost_) unreadable.parts.push_back({.start = start, .length = end - start});
  return unreadable;
}

}  // namespace sluicebox::image
