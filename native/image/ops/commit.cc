#include "image/ops/commit.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "base/checked.h"
#include "image/chain.h"
#include "image/open_file.h"
#include "image/ops/commit_copier.h"
#include "image/ops/differing_ranges.h"
#include "image/ops/growth.h"
#include "image/printable.h"

namespace sluicebox::image {

namespace {

Status require_overlay(const Layer& overlay, const CommitOptions& options) {
  if (overlay.block->format() == DiskFormat::kRaw) {
    return Error(ErrorCode::kUnsupported, printable(overlay.path) + " is raw, and a raw image has no backing")
        .on(overlay.path);
  }
  if (!overlay.block->backing()) {
    return Error(ErrorCode::kImageChain, printable(overlay.path) + " has no backing to commit into").on(overlay.path);
  }
  if (overlay.block->has_internal_snapshots()) {
    return Error(ErrorCode::kUnsupported,
                 printable(overlay.path) + " has internal snapshots, which show the backing's bytes and would change")
        .on(overlay.path)
        .advise("remove its internal snapshots first");
  }
  if (options.overlay == Committed::kRemoved && !overlay.regular) {
    return Error(ErrorCode::kUnsupported, printable(overlay.path) + " is a block device, which is not removed")
        .on(overlay.path)
        .advise("keep the overlay");
  }
  if (options.overlay == Committed::kRemoved && !overlay.files_beside.empty()) {
    return Error(ErrorCode::kUnsupported, printable(overlay.path) + " consists of several files, which are not removed")
        .on(overlay.path)
        .advise("keep the overlay, and remove its files by yourself");
  }
  return overlay.block->may_be_written(Writing::kBytes);
}

// The chain from the overlay's backing to its end, of which one is open for writing.
struct Below {
  std::vector<Layer> layers;
  std::size_t base = 0;  // that one
};

Result<Below> open_below(const Layer& overlay, const CommitOptions& options, OperationContext& context) {
  const BackingReference backing = *overlay.block->backing();
  OpenBacking request{.overlay = &overlay, .backing = backing, .also_named = options.known};
  if (options.into) {
    TRY(require_file_reference(*options.into));
    request.written =
        TRY(find_backing(overlay, *options.into, /*named_by_caller=*/true, {}, context.policy)).identity();
    // The caller's word counts for that file, wherever it lies.
    request.also_named.push_back(*request.written);
  } else if (const auto found = find_backing(overlay, backing.path, false, options.known, context.policy); found.ok()) {
    request.written = found.value().identity();
  }
  Below below{.layers = TRY(open_backing_chain(request, context))};
  const auto base =
      std::ranges::find_if(below.layers, [&](const Layer& each) { return each.identity == request.written; });
  if (base == below.layers.end()) {
    const std::string path = resolve_backing_path(overlay.path, options.into.value_or(backing.path));
    return Error(ErrorCode::kImageChain,
                 printable(path) + " is no image that " + printable(overlay.path) + " stands on")
        .on(path)
        .advise("name a file of its chain, as info with chain: true tells it");
  }
  below.base = static_cast<std::size_t>(base - below.layers.begin());
  return below;
}

// Known before anything is written: whether the base is large enough, or can be made so.
Status require_fits(const Layer& base, std::uint64_t size) {
  if (base.block->size() >= size) return {};
  Status can = base.block->can_resize(size);
  if (can.ok() && !base.regular && base.block->format() == DiskFormat::kRaw) {
    can = Error(ErrorCode::kUnsupported, "it is a block device");
  }
  if (can.ok()) return {};
  return Error(ErrorCode::kImageTooSmall, printable(base.path) + " has " + std::to_string(base.block->size()) +
                                              " bytes, the overlay " + std::to_string(size) +
                                              ", and it cannot grow: " + can.error().message)
      .on(base.path)
      .advise(can.error().hint);
}

// An overlay that records its backing's content id is told the new one before the backing's content changes. Killed
// just between the two, the overlay is refused until its backing is recorded anew (rebase in unsafe mode).
Status keep_content_id(Block& overlay, Block& base) {
  if (!overlay.content_id()) return {};
  std::optional<BackingReference> backing = overlay.backing();
  TRY(base.renew_content_id());
  backing->content_id = base.content_id();
  return overlay.set_backing(backing);
}

Status fill_base(const std::vector<Block*>& base_chain, Block& overlay, CommitCopier& copier, std::uint64_t size,
                 std::uint64_t total, OperationContext& context) {
  Block& base = *base_chain.front();
  NoProgress silent;  // the phases of a commit have one scale, and these are not on it
  TRY(base.prepare_to_write(Writing::kBytes, silent, context.cancel));
  TRY(keep_content_id(overlay, base));
  if (base.size() < size) {
    TRY(prepare_growth(base, {base_chain.begin() + 1, base_chain.end()}, size, silent, context.cancel));
    TRY(base.resize(size));
  }
  TRY(copier.copy(total));
  return base.flush();
}

Status empty_overlay(Block& overlay, const std::optional<BackingReference>& moved_to) {
  // What lay between may show other bytes than the base does: no longer seen before the overlay's own are gone.
  if (moved_to) TRY(overlay.set_backing(moved_to));
  return overlay.make_empty();
}

// The file that was committed, and no other that has taken its name.
Status remove_file(const Layer& overlay) {
  const UniqueFd directory(::open(directory_of(overlay.resolved_path).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory.valid())
    return os_error(errno, "cannot open the directory of " + printable(overlay.path), overlay.path);
  const std::string name = last_part(overlay.resolved_path);
  struct stat found = {};
  if (::fstatat(directory.get(), name.c_str(), &found, AT_SYMLINK_NOFOLLOW) != 0) {
    return os_error(errno, "cannot examine " + printable(overlay.path), overlay.path);
  }
  if (FileIdentity{.device = found.st_dev, .inode = found.st_ino} != overlay.identity) {
    return Error(ErrorCode::kImageLocked, printable(overlay.path) + " was replaced by another file meanwhile")
        .on(overlay.path);
  }
  if (::unlinkat(directory.get(), name.c_str(), 0) != 0) {
    return os_error(errno, "cannot remove " + printable(overlay.path), overlay.path);
  }
  if (::fsync(directory.get()) != 0) {
    return os_error(errno, "cannot sync the directory of " + printable(overlay.path), overlay.path);
  }
  return {};
}

}  // namespace

Result<CommitResult> commit_image(const std::string& path, const CommitOptions& options, OperationContext& context) {
  TRY(context.cancel.check());
  const Layer overlay = TRY(open_layer(path, options.format, Access::kWrite, context));
  TRY(require_overlay(overlay, options));
  const Below below = TRY(open_below(overlay, options, context));
  const Layer& base_layer = below.layers[below.base];
  Block& base = *base_layer.block;
  // Whole sectors: what guests see, and what other tools leave of a size that is not.
  const std::uint64_t size = checked_align_up(overlay.block->size(), 512).value_or(overlay.block->size());
  TRY(base.may_be_written(Writing::kBytes));
  TRY(require_fits(base_layer, size));
  if (overlay.block->content_id()) {
    if (below.base != 0) {
      return Error(ErrorCode::kUnsupported, std::string("a ") + format_name(overlay.block->format()) +
                                                " overlay is committed into its own backing only: the images between "
                                                "would no longer open")
          .on(path)
          .advise("commit layer by layer");
    }
    // It is told the new one, once the base has it.
    TRY(overlay.block->can_set_backing(overlay.block->backing()));
  }
  std::optional<BackingReference> moved_to;
  if (below.base != 0 && options.overlay == Committed::kEmptied) {
    moved_to = BackingReference{.path = *options.into, .format = recorded_name(base.format())};
    if (overlay.block->recorded_id()) note_identity(*moved_to, base_layer);
    TRY(overlay.block->can_set_backing(moved_to));
  }

  const std::vector<Block*> chain = blocks_of(below.layers);
  const auto split = chain.begin() + static_cast<std::ptrdiff_t>(below.base);
  std::vector<Block*> above = {overlay.block.get()};
  above.insert(above.end(), chain.begin(), split);
  const std::vector<Block*> base_chain(split, chain.end());
  CommitCopier copier(above, base_chain, context);
  context.progress.report({.phase = "plan", .done = 0, .total = std::nullopt});
  const std::uint64_t total = TRY(copier.count());
  if (options.overlay == Committed::kEmptied) {
    NoProgress silent;
    TRY(overlay.block->prepare_to_write(Writing::kBytes, silent, context.cancel));
  }
  if (Status filled = fill_base(base_chain, *overlay.block, copier, size, total, context); !filled.ok()) {
    base.abandon();
    return std::move(filled).error();
  }
  if (!context.cancel.try_commit()) return Error(ErrorCode::kCancelled, "the commit was cancelled");
  if (options.overlay != Committed::kLeft) {
    const bool empties = options.overlay == Committed::kEmptied;
    context.progress.report({.phase = empties ? "empty" : "remove", .done = total, .total = total});
    TRY(empties ? empty_overlay(*overlay.block, moved_to) : remove_file(overlay));
  }
  return CommitResult{.bytes_committed = total};
}

}  // namespace sluicebox::image
