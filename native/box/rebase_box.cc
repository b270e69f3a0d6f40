#include "box/rebase_box.h"

#include <utility>

#include "base/progress.h"
#include "box/disks.h"
#include "box/live_overlay.h"
#include "box/machine_calls.h"
#include "box/snapshots.h"
#include "image/open_file.h"
#include "image/ops/create.h"
#include "image/ops/info.h"

namespace sluicebox::box {

namespace {

struct Moment {
  State state{};
  std::optional<Machine::Chain> chain;  // of a running box: the disk's, now ours to move
};

// Of a running box nobody else moves the disk until release().
Result<Moment> look_at(const std::shared_ptr<Box>& box, Reactor& reactor, std::size_t disk) {
  return ask<Moment>(reactor, [box, disk](const std::function<void(Result<Moment>)>& answer) {
    Moment moment{.state = box->state(), .chain = std::nullopt};
    if (Machine* machine = box->machine(); machine != nullptr) {
      Machine::Chain& chain = machine->chain(disk);
      if (std::exchange(chain.moving, true))
        return answer(
            Error(ErrorCode::kInUse, "the box's disk is being moved already, or a snapshot is being taken of it"));
      ++chain.tried;
      moment.chain = chain;
    }
    answer(std::move(moment));
  });
}

// `node`: of the chain that the disk lies above now; empty: the one that it did.
void release(const std::shared_ptr<Box>& box, Reactor& reactor, std::size_t disk, unsigned tried,
             const std::string& node) {
  reactor.post([box, disk, tried, node] {
    Machine* machine = box->machine_there();
    if (machine == nullptr) return;
    Machine::Chain& chain = machine->chain(disk);
    if (chain.tried != tried) return;  // another machine, since
    chain.moving = false;
    if (!node.empty()) chain.below = {node};
  });
}

// Notes what the overlay may lie above from here on, whatever happens.
image::ChainChosen note_chain(const std::shared_ptr<Box>& box, std::size_t disk, LiveOverlay* live) {
  return [box, disk, live](const std::vector<image::Layer>& chain) -> Status {
    for (const image::Layer& layer : chain) TRY(require_machine_format(layer));
    if (live != nullptr) TRY(live->choose(chain));
    std::vector<FileFacts> facts = TRY(chain_facts(chain));
    const UniqueFd directory = TRY(box->home().directory(box->record().id));
    for (FileFacts& each : facts) each.own = is_own_layer(directory.get(), each);
    return box->update([&](BoxRecord& record) { record.disks[disk].next_bases = std::move(facts); });
  };
}

Status settle_chain(const std::shared_ptr<Box>& box, std::size_t disk, bool moved) {
  return box->update([&](BoxRecord& record) {
    DiskRecord& made = record.disks[disk];
    if (moved && made.next_bases) made.bases = std::move(*made.next_bases);
    made.next_bases.reset();
  });
}

// Beside the layers of the box's disks: see snapshots.h.
constexpr const char* kStepPrefix = "step";

// QEMU records the overlay's own format as that of any base that it is moved to, so the base must be a qcow2 image: a
// raw one gets an empty one above it, in the box's directory.
// Source: QEMU 7.2, blockdev.c, qmp_change_backing_file().
struct Target {
  image::RebaseOptions options;
  std::optional<std::string> step;  // the name of that image
  std::string named;                // the base as it was asked for
  image::DiskFormat format{};
};

Result<Target> plan_target(const std::shared_ptr<Box>& box, const std::string& overlay,
                           const image::RebaseOptions& options, std::uint64_t size, image::OperationContext& context) {
  Target target{.options = options, .step = std::nullopt, .named = options.backing.value_or(""), .format = {}};
  if (target.named.empty()) return target;
  std::string base;
  {
    const std::string path = image::resolve_backing_path(overlay, target.named);
    const image::Layer layer = TRY(image::open_layer(path, options.backing_format, image::Access::kRead, context));
    target.format = layer.block->format();
    base = layer.resolved_path;
    target.options.known.push_back(layer.identity);
  }
  const std::string folder = box->home().path_of(box->record().id);
  // By its name alone: a copy of the box has a copy of it beside its own overlay.
  if (image::directory_of(base) == folder) target.options.backing = image::last_part(base);
  if (target.format != image::DiskFormat::kRaw || options.dry_run) return target;
  const std::string id = TRY(new_box_id());
  target.step = kStepPrefix + id + ".qcow2";
  const std::string path = folder + "/" + *target.step;
  NoProgress silent;
  CancelToken cancel;  // of its own: it is a step of something larger
  image::OperationContext creation{.policy = context.policy, .cancel = cancel, .progress = silent};
  const image::CreateOptions create{.size = size,
                                    .backing = image::BackingOption{.path = base, .format = image::DiskFormat::kRaw},
                                    .format = image::Qcow2Create{}};
  TRY(image::create_image(path, create, creation));
  target.options.backing = *target.step;
  target.options.backing_format = image::DiskFormat::kQcow2;
  return target;
}

std::string overlay_of(const std::shared_ptr<Box>& box, std::size_t disk) {
  const BoxRecord record = box->record();
  return disk_path(record, disk, box->home().path_of(record.id));
}

image::RebaseOptions knowing_bases(const image::RebaseOptions& options, const DiskRecord& disk) {
  image::RebaseOptions known = options;
  known.known = bases_of(disk);
  return known;
}

Result<RebasedBox> rebase_running(const std::shared_ptr<Box>& box, Reactor& reactor, std::size_t disk,
                                  const Machine::Chain& chain, const image::RebaseOptions& options,
                                  image::OperationContext& context, std::string& now_on) {
  const std::string path = overlay_of(box, disk);
  const UniqueFd directory = TRY(box->home().directory(box->record().id));
  const image::ImageInfo info =
      TRY(image::image_info(path, {.format = image::DiskFormat::kQcow2, .shared = true}, context));
  std::optional<image::BackingReference> backing;
  if (info.backing) backing = image::BackingReference{.path = info.backing->path, .format = info.backing->format};
  auto overlay = std::make_unique<LiveOverlay>(
      calls_to(box, reactor),
      LiveOverlay::Place{
          .node = chain.active, .generation = chain.tried, .below = chain.below, .directory = directory.get()},
      info.virtual_bytes, info.layer.cluster_bytes.value_or(65536), std::move(backing));
  LiveOverlay& live = *overlay;
  image::Layer layer;
  layer.path = path;
  layer.resolved_path = path;
  layer.directories.named = TRY(image::open_directory_of(path));
  layer.block = std::move(overlay);
  const Target target = TRY(plan_target(box, path, options, info.virtual_bytes, context));
  auto rebased = image::rebase_overlay(layer, target.options, context, note_chain(box, disk, &live));
  // After a switch that failed half-way either chain may be the one that its header names.
  const bool switched = live.paused().count() > 0;
  const bool moved = rebased.ok() && !options.dry_run;
  if (moved) now_on = live.chain_node();
  if (rebased.ok() || !switched) TRY(settle_chain(box, disk, moved));
  drop_unused_layers(directory.get(), box->record());
  if (!rebased.ok()) return std::move(rebased).error();
  RebasedBox done{.result = std::move(rebased).value(), .paused = std::nullopt};
  if (moved) done.paused = live.paused();
  if (target.step) {
    done.result.to = target.named;
    done.result.backing_format = image::format_name(target.format);
  }
  return done;
}

}  // namespace

Result<RebasedBox> rebase_standing(const std::shared_ptr<Box>& box, std::size_t disk,
                                   const image::RebaseOptions& wanted, image::OperationContext& context) {
  const image::RebaseOptions options = knowing_bases(wanted, box->record().disks[disk]);
  const image::Layer overlay =
      TRY(image::open_layer(overlay_of(box, disk), image::DiskFormat::kQcow2,
                            options.dry_run ? image::Access::kRead : image::Access::kWrite, context));
  auto rebased = image::rebase_overlay(overlay, options, context, note_chain(box, disk, nullptr));
  if (rebased.ok() && options.unsafe && !options.dry_run) {
    const auto chain = TRY(image::open_backing_chain(
        {.overlay = &overlay, .backing = overlay.block->backing(), .named_by_caller = true}, context));
    TRY(note_chain(box, disk, nullptr)(chain));
  }
  TRY(settle_chain(box, disk, rebased.ok() && !options.dry_run));
  drop_unused_layers(TRY(box->home().directory(box->record().id)).get(), box->record());
  if (!rebased.ok()) return std::move(rebased).error();
  return RebasedBox{.result = std::move(rebased).value(), .paused = std::nullopt};
}

Result<RebasedBox> rebase_box(const std::shared_ptr<Box>& box, Reactor& reactor, std::size_t disk,
                              const image::RebaseOptions& options, const IsHeld& held,
                              image::OperationContext& context) {
  const BoxRecord record = box->record();
  if (disk >= record.disks.size() || record.disks[disk].overlay.empty())
    return Error(ErrorCode::kUnsupported, "the box has no overlay of its own that could be moved to another base")
        .advise("Create it with isolation 'vm' and rootfs { disk }.");
  const Moment moment = TRY(look_at(box, reactor, disk));
  if (moment.chain) {
    // Nobody else puts another overlay there until release().
    const image::RebaseOptions wanted = knowing_bases(options, box->record().disks[disk]);
    std::string now_on;
    Result<RebasedBox> rebased =
        wanted.unsafe ? Error(ErrorCode::kBoxState, "the box is running, so its base cannot be changed unsafely")
                            .advise("Stop the box first, or leave mode at 'safe'.")
                      : rebase_running(box, reactor, disk, *moment.chain, wanted, context, now_on);
    release(box, reactor, disk, moment.chain->tried, now_on);
    return rebased;
  }
  if (moment.state != State::kCreated && moment.state != State::kStopped && moment.state != State::kFailed) {
    return Error(ErrorCode::kBoxState,
                 std::string("the box is ") + state_name(moment.state) + ", so its disk cannot be moved");
  }
  const MutexLock turn(box->layers_turn());
  std::optional<Home::Held> lock;
  if (!held()) lock = TRY(box->home().hold(record.id));
  return rebase_standing(box, disk, options, context);
}

}  // namespace sluicebox::box
