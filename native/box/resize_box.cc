#include "box/resize_box.h"

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <tuple>
#include <utility>

#include "base/checked.h"
#include "box/disks.h"
#include "box/machine_calls.h"
#include "image/chain.h"
#include "image/ops/info.h"
#include "image/ops/resize.h"

namespace sluicebox::box {

namespace {

constexpr std::uint64_t kDiskSector = 512;

// A box as it was found, and the disk of one that runs: nobody else changes that before this goes.
class DiskTurn {
 public:
  static Result<std::unique_ptr<DiskTurn>> take(const std::shared_ptr<Box>& box, Reactor& reactor, std::size_t disk) {
    auto turn = std::make_unique<DiskTurn>(box, reactor, disk);
    std::tie(turn->state_, turn->chain_) = TRY(ask<Found>(reactor, [box, disk](const auto& answer) {
      Found found{box->state(), std::nullopt};
      if (Machine* machine = box->machine(); machine != nullptr) {
        Machine::Chain& chain = machine->chain(disk);
        if (std::exchange(chain.moving, true))
          return answer(Error(ErrorCode::kInUse, "the box's disk is being moved, or a snapshot is being taken of it"));
        ++chain.tried;
        found.second = chain;
      }
      answer(std::move(found));
    }));
    return turn;
  }
  DiskTurn(std::shared_ptr<Box> box, Reactor& reactor, std::size_t disk)
      : box_(std::move(box)), reactor_(reactor), disk_(disk) {}
  ~DiskTurn() {
    if (!chain_) return;
    reactor_.post([box = box_, disk = disk_, tried = chain_->tried] {
      Machine* machine = box->machine_there();
      // Another machine may be there since.
      if (machine != nullptr && machine->chain(disk).tried == tried) machine->chain(disk).moving = false;
    });
  }
  DiskTurn(const DiskTurn&) = delete;
  DiskTurn& operator=(const DiskTurn&) = delete;

  State state() const { return state_; }
  // The node that the guest writes to; nothing where no machine runs.
  std::optional<std::string> node() const { return chain_ ? std::optional(chain_->active) : std::nullopt; }

 private:
  using Found = std::pair<State, std::optional<Machine::Chain>>;
  const std::shared_ptr<Box> box_;
  Reactor& reactor_;
  const std::size_t disk_;
  State state_{};
  std::optional<Machine::Chain> chain_;
};

Status require_larger(std::uint64_t from, std::uint64_t to, const std::string& path) {
  if (to >= from) return ok_status();
  return Error(ErrorCode::kInvalidArgument,
               "size: a box's disk only gets larger, and it has " + std::to_string(from) + " bytes already")
      .on(path)
      .advise("Make a new disk of that size, and have the guest copy what it keeps.");
}

// QEMU writes the size into the overlay, with zeros where a larger base would show, and tells the guest.
Result<ResizedBox> resize_running(const QmpCall& call, const std::string& node, const std::string& path,
                                  std::uint64_t size, image::OperationContext& context) {
  const image::ImageInfo info =
      TRY(image::image_info(path, {.format = image::DiskFormat::kQcow2, .shared = true}, context));
  TRY(require_larger(info.virtual_bytes, size, path));
  if (!context.cancel.try_commit()) return Error(ErrorCode::kCancelled, "the resize was cancelled");
  TRY(call("block_resize", {{"node-name", node}, {"size", size}}, {}));
  return ResizedBox{.from = info.virtual_bytes, .to = size};
}

Result<ResizedBox> resize_standing(const std::shared_ptr<Box>& box, std::size_t disk, std::uint64_t size,
                                   const IsHeld& held, image::OperationContext& context) {
  const MutexLock turn(box->layers_turn());
  std::optional<Home::Held> lock;
  if (!held()) lock = TRY(box->home().hold(box->record().id));
  // Not before: a snapshot puts another overlay in its place.
  const BoxRecord record = box->record();
  const std::string path = disk_path(record, disk, box->home().path_of(record.id));
  const image::Layer overlay = TRY(image::open_layer(path, image::DiskFormat::kQcow2, image::Access::kWrite, context));
  const std::uint64_t from = overlay.block->size();
  TRY(require_larger(from, size, path));
  TRY(image::resize_layer(overlay, {.size = size, .known = bases_of(record.disks[disk])}, context));
  return ResizedBox{.from = from, .to = size};
}

}  // namespace

Result<ResizedBox> resize_box(const std::shared_ptr<Box>& box, Reactor& reactor, std::size_t disk, std::uint64_t size,
                              const IsHeld& held, image::OperationContext& context) {
  const BoxRecord record = box->record();
  if (disk >= record.disks.size() || record.disks[disk].overlay.empty())
    return Error(ErrorCode::kUnsupported, "the box has no overlay of its own that could be resized")
        .advise("Create it with isolation 'vm' and rootfs { disk }.");
  const auto rounded = checked_align_up(size, kDiskSector);
  if (!rounded)
    return Error(ErrorCode::kInvalidArgument, "size: " + std::to_string(size) + " bytes are more than a disk can have");
  const auto turn = TRY(DiskTurn::take(box, reactor, disk));
  if (const auto node = turn->node()) {
    const std::string path = disk_path(box->record(), disk, box->home().path_of(record.id));
    return resize_running(calls_to(box, reactor), *node, path, *rounded, context);
  }
  const State state = turn->state();
  if (state == State::kCreated || state == State::kStopped || state == State::kFailed)
    return resize_standing(box, disk, *rounded, held, context);
  return Error(ErrorCode::kBoxState,
               std::string("the box is ") + state_name(state) + ", so its disk cannot be resized");
}

}  // namespace sluicebox::box
