#include "image/ops/commit_copier.h"

#include <algorithm>

#include "base/checked.h"

namespace sluicebox::image {

namespace {

constexpr std::uint64_t kCopyWindow = 2u << 20;   // no smaller than the largest unit
constexpr std::uint64_t kZeroWindow = 64u << 20;  // between two looks at the cancel token

}  // namespace

CommitCopier::CommitCopier(std::vector<Block*> above, std::vector<Block*> base, OperationContext& context)
    : base_chain_(std::move(base)),
      base_(*base_chain_.front()),
      unit_(base_.allocation_unit()),
      size_(above.front()->size()),
      above_(above, size_),
      depth_(above.size()),
      context_(context) {}

// The first range from `from` on that a layer above answers for: with data, with zeros, or with its own end.
Result<std::optional<CommitCopier::Held>> CommitCopier::next_held(std::uint64_t from, std::uint64_t end) {
  while (from < end) {
    const ChainView::Extent extent = TRY(above_.status(from, end - from));
    if (extent.depth != depth_) {
      return std::optional(Held{.range = {.offset = from, .length = extent.length}, .zero = extent.zero});
    }
    from += extent.length;
  }
  return std::optional<Held>();
}

Result<std::uint64_t> CommitCopier::count() {
  std::uint64_t bytes = 0;
  for (std::uint64_t at = 0; at < size_;) {
    TRY(context_.cancel.check());
    const auto held = TRY(next_held(at, size_));
    if (!held) break;
    bytes += held->range.length;
    at = held->range.offset + held->range.length;
  }
  return bytes;
}

Status CommitCopier::copy(std::uint64_t total) {
  total_ = total;
  for (std::uint64_t at = 0; at < size_;) {
    TRY(context_.cancel.check());
    context_.progress.report({.phase = "copy", .done = copied_, .total = total_});
    const auto held = TRY(next_held(at, size_));
    if (!held) break;
    const std::uint64_t start = align_down(held->range.offset, unit_);
    const std::uint64_t zeros = held->zero && start == held->range.offset ? align_down(held->range.length, unit_) : 0;
    if (zeros != 0) {
      const std::uint64_t part = std::min(zeros, kZeroWindow);
      TRY(base_.write_zeros(start, part));
      copied_ += part;
      at = start + part;
      continue;
    }
    const std::uint64_t end = std::min(start + kCopyWindow, base_.size());
    TRY(copy_window(start, end));
    at = end;
  }
  context_.progress.report({.phase = "copy", .done = copied_, .total = total_});
  return {};
}

// `start` begins a unit, `end` ends one, or the base.
Status CommitCopier::copy_window(std::uint64_t start, std::uint64_t end) {
  std::vector<Held> held;
  DiskRange run{.offset = start, .length = 0};  // units that lie side by side
  const auto write_run = [&]() -> Status {
    if (run.length != 0) TRY(write_units(run, held));
    held.clear();
    return {};
  };
  const std::uint64_t held_end = std::min(end, size_);
  for (std::uint64_t at = start; at < held_end;) {
    const auto next = TRY(next_held(at, held_end));
    if (!next) break;
    const std::uint64_t next_end = next->range.offset + next->range.length;
    const std::uint64_t first = align_down(next->range.offset, unit_);
    if (first > run.offset + run.length) {
      TRY(write_run());
      run = {.offset = first, .length = 0};
    }
    held.push_back(*next);
    run.length = std::min(checked_align_up(next_end, unit_).value_or(end), end) - run.offset;
    copied_ += next->range.length;
    at = next_end;
  }
  return write_run();
}

// What the layers above do not cover of these units stays as the base shows it.
Status CommitCopier::write_units(DiskRange run, const std::vector<Held>& held) {
  buffer_.resize(std::max<std::size_t>(buffer_.size(), run.length));
  const MutableBytes bytes = MutableBytes(buffer_).first(run.length);
  std::uint64_t covered = 0;
  for (const Held& each : held) covered += each.range.length;
  // A view of its own each time: the base was written since the last one.
  if (covered != run.length) TRY(ChainView(base_chain_, base_.size()).read(run.offset, bytes));
  for (const Held& each : held) {
    TRY(above_.read(each.range.offset, bytes.subspan(each.range.offset - run.offset, each.range.length)));
  }
  return base_.write(run.offset, bytes);
}

}  // namespace sluicebox::image
