#include "image/ops/rebase.h"

#include <algorithm>
#include <vector>

#include "image/chain.h"
#include "image/open_file.h"
#include "image/ops/compare_ahead.h"
#include "image/ops/differing_ranges.h"
#include "image/ops/overlay_filler.h"
#include "image/printable.h"

namespace sluicebox::image {

namespace {

using Reference = std::optional<BackingReference>;

// One scale for all phases, so that `done` only ever grows: bytes compared, of those that have to be. Unknown while
// planning.
void report(OperationContext& context, const char* phase, std::uint64_t done, std::optional<std::uint64_t> total) {
  context.progress.report({.phase = phase, .done = done, .total = total, .unit = ProgressUnit::kBytes});
}

Result<Reference> wanted_reference(const RebaseOptions& options) {
  if (!options.backing || options.backing->empty()) return Reference();
  TRY(require_file_reference(*options.backing));
  BackingReference reference{.path = *options.backing, .format = std::nullopt};
  if (options.backing_format) reference.format = recorded_name(*options.backing_format);
  return Reference(std::move(reference));
}

Status require_rebasable(const Layer& overlay, bool unsafe) {
  if (overlay.block->format() == DiskFormat::kRaw) {
    return Error(ErrorCode::kUnsupported, printable(overlay.path) + " is raw, and a raw image has no backing")
        .on(overlay.path)
        .advise("create a qcow2 overlay over it");
  }
  if (!unsafe && overlay.block->has_internal_snapshots()) {
    return Error(ErrorCode::kUnsupported,
                 printable(overlay.path) + " has internal snapshots, which show the backing's bytes and would change")
        .on(overlay.path)
        .advise("remove its internal snapshots first");
  }
  return {};
}

// Formats that record their backing's id need it of a backing that is there, and keep the recorded one of a backing
// that is not (it was moved, and will be there).
Status look_up_identity(const Layer& overlay, BackingReference& wanted, OperationContext& context) {
  if (!overlay.block->recorded_id() || !wanted.format) return {};
  const std::optional<DiskFormat> format = format_from_name(*wanted.format);
  if (!format) return {};
  const Result<Layer> opened =
      open_layer(resolve_backing_path(overlay.path, wanted.path), format, Access::kShared, context, Purpose::kInfo);
  if (opened.ok()) {
    note_identity(wanted, opened.value());
    return {};
  }
  if (opened.error().code == ErrorCode::kImageNotFound) return {};
  return opened.error();
}

// Both chains, open for reading; the overlay keeps its own lock.
struct Chains {
  std::vector<Layer> before, after;
};

Result<Chains> open_chains(const Layer& overlay, const Reference& wanted, const std::vector<FileIdentity>& known,
                           OperationContext& context) {
  Chains chains;
  chains.after = TRY(open_backing_chain(
      {.overlay = &overlay, .backing = wanted, .named_by_caller = true, .also_named = known}, context));
  OpenBacking before{.overlay = &overlay, .backing = overlay.block->backing(), .also_named = known};
  if (!chains.after.empty()) before.also_named.push_back(chains.after.front().identity);
  Result<std::vector<Layer>> opened = open_backing_chain(before, context);
  if (!opened.ok()) {
    Error error = std::move(opened).error();
    if (error.code == ErrorCode::kImageNotFound) {
      error.hint = "the present backing is needed to compare; unsafe mode changes the pointer without it";
    }
    return error;
  }
  chains.before = std::move(opened).value();
  return chains;
}

// The ranges to compare: those found first are kept, and where they are many the walk goes on from there.
struct Plan {
  std::vector<DiskRange> ranges;
  std::optional<DifferingRanges> rest;
  std::uint64_t total = 0;  // bytes
};
constexpr std::size_t kMostKept = 1u << 14;

Result<Plan> plan(Block& overlay, const Chains& chains, OperationContext& context) {
  DifferingRanges walk(overlay, chains.before, chains.after, context.cancel);
  Plan plan;
  report(context, "plan", 0, std::nullopt);
  while (true) {
    if (!plan.rest && plan.ranges.size() == kMostKept) plan.rest.emplace(walk);
    const std::optional<DiskRange> range = TRY(walk.next());
    if (!range) break;
    if (!plan.rest) plan.ranges.push_back(*range);
    plan.total += range->length;
  }
  return plan;
}

// The plan's ranges, in order, as they fit into one window after another.
class RangeFeeder {
 public:
  explicit RangeFeeder(Plan& plan) : plan_(plan) {}

  // False when there is no more.
  Result<bool> feed(ComparedWindow& window, std::uint64_t room) {
    while (window.length < room) {
      if (part_.length == 0 && !TRY(next_range())) break;
      const std::uint64_t length = std::min(part_.length, room - window.length);
      window.ranges.push_back({.offset = part_.offset, .length = length});
      window.length += length;
      part_ = {.offset = part_.offset + length, .length = part_.length - length};
    }
    return window.length != 0;
  }

 private:
  Result<bool> next_range() {
    if (taken_ < plan_.ranges.size()) {
      part_ = plan_.ranges[taken_++];
      return true;
    }
    if (!plan_.rest) return false;
    const std::optional<DiskRange> range = TRY(plan_.rest->next());
    if (!range) return false;
    part_ = *range;
    return true;
  }

  Plan& plan_;
  std::size_t taken_ = 0;
  DiskRange part_;  // what is left of the range taken last
};

Result<FillCounts> fill_overlay(Block& overlay, const Chains& chains, bool write, OperationContext& context) {
  NoProgress silent;  // the phases of a rebase have one scale, and this is not on it
  Plan planned = TRY(plan(overlay, chains, context));
  if (write) TRY(overlay.prepare_to_write(Writing::kBytes, silent, context.cancel));
  RangeFeeder feeder(planned);
  OverlayFiller filler(overlay, write);
  CompareAhead ahead(ChainView(blocks_of(chains.before), overlay.size()),
                     ChainView(blocks_of(chains.after), overlay.size()), overlay.allocation_unit(), planned.total);
  report(context, "compare", 0, planned.total);
  while (true) {
    for (ComparedWindow* window = ahead.vacant(); window != nullptr; window = ahead.vacant()) {
      if (!TRY(feeder.feed(*window, ahead.window()))) break;
      ahead.begin();
    }
    TRY(context.cancel.check());
    ComparedWindow* window = ahead.front();
    if (window == nullptr) return filler.counts();
    if (!window->outcome.ok()) return window->outcome.error();
    TRY(filler.fill(*window));
    ahead.release();
    report(context, "compare", filler.counts().bytes_compared, planned.total);
  }
}

// Data first, durable; then the pointer. Killed before the header update, the old chain still shows the same bytes.
Status publish(Block& overlay, const Reference& wanted, const FillCounts& counts, OperationContext& context) {
  report(context, "copy", counts.bytes_compared, counts.bytes_compared);
  if (counts.bytes_copied != 0) TRY(overlay.flush());
  if (!context.cancel.try_commit()) return Error(ErrorCode::kCancelled, "the rebase was cancelled");
  report(context, "header", counts.bytes_compared, counts.bytes_compared);
  return overlay.set_backing(wanted);
}

}  // namespace

Result<RebaseResult> rebase_image(const std::string& path, const RebaseOptions& options, OperationContext& context) {
  TRY(context.cancel.check());
  const Reference wanted = TRY(wanted_reference(options));
  if (options.unsafe && wanted && !wanted->format) {
    return Error(ErrorCode::kInvalidArgument,
                 "backingFormat is required in unsafe mode, which does not open the backing")
        .on(path)
        .advise("give the format of the new backing");
  }
  const Access access = options.dry_run ? Access::kRead : Access::kWrite;
  const Layer overlay = TRY(open_layer(path, options.format, access, context));
  return rebase_overlay(overlay, options, context);
}

Result<RebaseResult> rebase_overlay(const Layer& overlay, const RebaseOptions& options, OperationContext& context,
                                    const ChainChosen& chosen) {
  Reference wanted = TRY(wanted_reference(options));
  Block& block = *overlay.block;
  TRY(require_rebasable(overlay, options.unsafe));
  TRY(block.may_be_written(options.unsafe ? Writing::kBacking : Writing::kBytes));
  TRY(block.can_set_backing(wanted));

  FillCounts counts;
  if (options.unsafe) {
    if (wanted) TRY(judge_unopened_backing(overlay, wanted->path, context));
    if (wanted) TRY(look_up_identity(overlay, *wanted, context));
    NoProgress silent;
    if (!options.dry_run) TRY(block.prepare_to_write(Writing::kBacking, silent, context.cancel));
  } else {
    const Chains chains = TRY(open_chains(overlay, wanted, options.known, context));
    if (wanted) wanted->format = recorded_name(chains.after.front().block->format());
    if (wanted && block.recorded_id()) note_identity(*wanted, chains.after.front());
    TRY(block.can_set_backing(wanted));
    if (chosen) TRY(chosen(chains.after));
    Result<FillCounts> filled = fill_overlay(block, chains, !options.dry_run, context);
    // Space that nothing refers to would stay in the file for good.
    if (!filled.ok()) block.abandon();
    counts = TRY(std::move(filled));
  }

  RebaseResult result;
  result.format = block.format();
  if (wanted) result.backing_format = wanted->format;
  if (const Reference present = block.backing()) result.from = present->path;
  if (wanted) result.to = wanted->path;
  result.clusters_compared = counts.clusters_compared;
  result.clusters_copied = counts.clusters_copied;
  result.bytes_copied = counts.bytes_copied;
  if (options.dry_run) return result;
  if (Status published = publish(block, wanted, counts, context); !published.ok()) {
    block.abandon();
    return std::move(published).error();
  }
  return result;
}

}  // namespace sluicebox::image
