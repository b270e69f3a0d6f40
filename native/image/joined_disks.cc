#include "image/joined_disks.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/checked.h"
#include "image/block_range.h"

namespace sluicebox::image {

Result<std::unique_ptr<JoinedDisks>> JoinedDisks::join(std::vector<std::vector<Block*>> disks) {
  std::vector<Disk> joined;
  std::uint64_t end = 0;
  for (std::vector<Block*>& layers : disks) {
    const std::uint64_t size = layers.front()->size();
    const std::optional<std::uint64_t> after = checked_add(end, size);
    if (!after || *after > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
      return Error(ErrorCode::kInvalidArgument, "the sources together are larger than a file can be");
    }
    if (size != 0) joined.push_back({.start = end, .view = std::make_unique<SharedChainView>(std::move(layers), size)});
    end = *after;
  }
  return std::unique_ptr<JoinedDisks>(new JoinedDisks(std::move(joined), end));
}

const JoinedDisks::Disk& JoinedDisks::disk_at(std::uint64_t offset) const {
  const auto after = std::ranges::upper_bound(disks_, offset, {}, &Disk::start);
  return *std::prev(after);
}

Status JoinedDisks::read(std::uint64_t offset, MutableBytes out) {
  TRY(check_range(offset, out.size(), size_));
  while (!out.empty()) {
    const Disk& disk = disk_at(offset);
    const std::uint64_t within = offset - disk.start;
    const MutableBytes part = out.first(std::min<std::uint64_t>(out.size(), disk.view->size() - within));
    TRY(disk.view->read(within, part));
    offset += part.size();
    out = out.subspan(part.size());
  }
  return {};
}

Result<BlockStatus> JoinedDisks::status(std::uint64_t offset, std::uint64_t length) {
  TRY(check_range(offset, 1, size_));
  const Disk& disk = disk_at(offset);
  return status_of(TRY(disk.view->status(offset - disk.start, length)));
}

}  // namespace sluicebox::image
