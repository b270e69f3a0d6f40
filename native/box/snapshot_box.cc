#include "box/snapshot_box.h"

#include <fcntl.h>
#include <unistd.h>

#include <ctime>
#include <utility>

#include "box/live_look.h"
#include "box/machine_calls.h"
#include "box/merge_layers.h"
#include "box/stacking.h"

namespace sluicebox::box {

namespace {

// QEMU is handed a descriptor for each, and there is an end to how many.
constexpr std::size_t kMostLayers = 64;
constexpr std::size_t kMostFiles = 200;  // of all its disks

std::int64_t epoch_ms() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return std::int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1000000;
}

struct Reserved {
  State state{};
  std::vector<Machine::Chain> chains;  // of a running machine, ours until release()
};

Result<Reserved> reserve(const std::shared_ptr<Box>& box, Reactor& reactor, std::size_t disks) {
  return ask<Reserved>(reactor, [box, disks](const std::function<void(Result<Reserved>)>& answer) {
    Reserved reserved{.state = box->state(), .chains = {}};
    Machine* machine = box->machine();
    if (machine == nullptr) return answer(std::move(reserved));
    for (std::size_t i = 0; i < disks; ++i) {
      if (machine->chain(i).moving)
        return answer(Error(ErrorCode::kInUse, "the box's disk is being moved, or another snapshot is being taken"));
    }
    for (std::size_t i = 0; i < disks; ++i) {
      Machine::Chain& chain = machine->chain(i);
      chain.moving = true;
      ++chain.tried;
      reserved.chains.push_back(chain);
    }
    answer(std::move(reserved));
  });
}

void release(const std::shared_ptr<Box>& box, Reactor& reactor, std::vector<Machine::Chain> chains) {
  reactor.post([box, chains = std::move(chains)]() mutable {
    Machine* machine = box->machine_there();
    for (std::size_t i = 0; machine != nullptr && i < chains.size(); ++i) {
      if (machine->chain(i).tried != chains[i].tried) return;  // another machine, since
      chains[i].moving = false;
      machine->chain(i) = std::move(chains[i]);
    }
  });
}

Status take_running(const std::shared_ptr<Box>& box, Reactor& reactor, std::vector<Machine::Chain>& chains,
                    int directory, const UniqueFd& place, SnapshotRecord& record, image::OperationContext& context) {
  Stacking stacking(box, directory);
  TRY(stacking.begin(context));
  LiveLook look(box, reactor, chains, directory);
  TRY(look.add_layers(stacking.layers()));
  UniqueFd state;
  if (record.memory) {
    state = UniqueFd(::openat(place.get(), "state", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!state.valid()) return os_error(errno, "cannot make a file for the machine's memory");
  }
  Status taken = look.freeze(!record.memory);
  if (taken.ok()) taken = record.memory ? look.take_all(std::move(state), context.cancel) : look.take_disks();
  look.thaw();
  if (look.switched()) stacking.keep();
  TRY(std::move(taken));
  record.disks = stacking.disks();
  record.paused_ms = look.paused_ms();
  record.bytes = stacking.space() + (record.memory ? space_of(place.get(), "state") : 0);
  return ok_status();
}

// On the disk before the record that says so.
Status settle_state(int place) {
  const UniqueFd state(::openat(place, "state", O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!state.valid() || ::fdatasync(state.get()) != 0) return os_error(errno, "cannot keep the machine's memory");
  return ok_status();
}

Status take_standing(const std::shared_ptr<Box>& box, int directory, SnapshotRecord& record,
                     image::OperationContext& context) {
  Stacking stacking(box, directory);
  TRY(stacking.begin(context));
  stacking.keep();
  record.disks = stacking.disks();
  record.bytes = stacking.space();
  return ok_status();
}

Status check_disks(const BoxRecord& record) {
  if (!record.spec.machine) {
    return Error(ErrorCode::kUnsupported, "only a virtual machine has snapshots")
        .advise("Create the box with isolation: 'vm'.");
  }
  std::size_t files = 0;
  for (const DiskRecord& disk : record.disks) {
    files += disk.bases.size() + 1;
    if (disk.next_bases)
      return Error(ErrorCode::kBoxState, "a move of the box's disk to another base was cut off")
          .advise("Move it again.");
    if (disk.bases.size() >= kMostLayers || files + record.disks.size() > kMostFiles) {
      return Error(ErrorCode::kUnsupported, "the box's disk has " + std::to_string(disk.bases.size()) +
                                                " layers, and each snapshot and each clone of a moment adds one")
          .advise("Merge them: runtime.rebase(box, { backing }) onto the base that it has.");
    }
  }
  for (const DiskSpec& disk : record.spec.disks) {
    if (disk.mode == DiskMode::kDirect)
      return Error(ErrorCode::kUnsupported, "the box writes to this disk directly, so no snapshot keeps what it held")
          .on(disk.path);
  }
  return ok_status();
}

}  // namespace

Result<SnapshotRecord> snapshot_box(const std::shared_ptr<Box>& box, Reactor& reactor, const SnapshotRequest& request,
                                    const IsHeld& held, image::OperationContext& context) {
  // Where that fails there may be room for one more.
  [[maybe_unused]] const Status merged = merge_when_many(box, reactor, held, context);
  TRY(context.cancel.check());
  const MutexLock turn(box->layers_turn());
  const BoxRecord record = box->record();
  TRY(check_disks(record));
  const UniqueFd directory = TRY(box->home().directory(record.id));
  SnapshotRecord snapshot{.id = TRY(new_box_id()),
                          .name = request.name,
                          .created_at_ms = epoch_ms(),
                          .memory = request.memory,
                          .parent = {},
                          .labels = request.labels,
                          .qemu = request.memory ? box->engine().means().identity : std::string(),
                          .disks = {}};
  Reserved reserved = TRY(reserve(box, reactor, record.disks.size()));
  std::optional<Home::Held> lock;
  const auto taken = [&]() -> Status {
    for (const SnapshotRecord& each : TRY(list_snapshots(directory.get()))) {
      if (each.name == request.name)
        return Error(ErrorCode::kSnapshotExists, "the box has a snapshot named \"" + request.name + "\" already");
      snapshot.parent = each.id;
    }
    const bool runs = reserved.state == State::kRunning && !reserved.chains.empty();
    const bool stands = reserved.state == State::kCreated || reserved.state == State::kStopped;
    if (!runs && (!stands || request.memory)) {
      return Error(ErrorCode::kBoxState, std::string("the box is ") + state_name(reserved.state) +
                                             (stands ? ", so there is no memory to keep" : ", so it cannot be kept"));
    }
    if (!runs && !held()) lock = TRY(box->home().hold(record.id));
    drop_half_made(directory.get());
    const UniqueFd place = TRY(begin_snapshot(directory.get(), snapshot.id));
    TRY(runs ? take_running(box, reactor, reserved.chains, directory.get(), place, snapshot, context)
             : take_standing(box, directory.get(), snapshot, context));
    if (snapshot.memory) TRY(settle_state(place.get()));
    // From here on it is there, whoever gives up waiting for it.
    if (!context.cancel.try_commit()) return Error(ErrorCode::kCancelled, "the operation was cancelled");
    return finish_snapshot(directory.get(), snapshot);
  };
  const Status done = taken();
  if (lock) lock->let_go();
  release(box, reactor, std::move(reserved.chains));
  if (done.ok()) return snapshot;
  [[maybe_unused]] const Status dropped = drop_snapshot(directory.get(), snapshot.id);
  return done.error();
}

Status remove_snapshot(const std::shared_ptr<Box>& box, Reactor& reactor, const std::string& name, const IsHeld& held,
                       image::OperationContext& context) {
  const MutexLock turn(box->layers_turn());
  const BoxRecord record = box->record();
  const UniqueFd directory = TRY(box->home().directory(record.id));
  const SnapshotRecord snapshot = TRY(find_snapshot(directory.get(), name));
  TRY(drop_snapshot(directory.get(), snapshot.id));
  // Who moves a disk meanwhile has files that no record names yet, and drops what is unused when it is done.
  auto reserved = reserve(box, reactor, record.disks.size());
  if (!reserved.ok()) return ok_status();
  const bool runs = !reserved.value().chains.empty();
  auto lock = runs || held() ? Result<Home::Held>(Home::Held{}) : box->home().hold(record.id);
  if (lock.ok()) {
    drop_unused_layers(directory.get(), box->record());
    // What could not be merged is as good as before, and the next removal tries again.
    if (!runs) [[maybe_unused]]
      const Status merged = merge_layers(box, context);
    lock.value().let_go();
  }
  release(box, reactor, std::move(reserved.value().chains));
  return ok_status();
}

}  // namespace sluicebox::box
