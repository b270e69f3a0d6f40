#include "box/snapshot_box.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <condition_variable>
#include <ctime>
#include <deque>
#include <mutex>
#include <nlohmann/json.hpp>
#include <utility>

#include "box/disks.h"
#include "box/layers.h"
#include "box/machine_calls.h"
#include "box/qemu_command.h"
#include "box/qmp_words.h"
#include "image/ops/info.h"

namespace sluicebox::box {

namespace {

using nlohmann::json;
using std::chrono::milliseconds;

constexpr std::chrono::seconds kMostMigration{120};
// QEMU is handed a descriptor for each, and there is an end to how many.
constexpr std::size_t kMostLayers = 64;
constexpr std::size_t kMostFiles = 200;  // of all its disks
// How long a wait goes on before it looks whether it is still wanted.
constexpr milliseconds kGlance{50};

// The steps of a migration, as they are told on the reactor's thread.
class MigrationSteps {
  static constexpr std::size_t kMostSteps = 64;  // of a QEMU that is sound, far fewer

 public:
  void tell(const std::string& step) {
    const std::lock_guard lock(mutex_);
    if (steps_.size() < kMostSteps) steps_.push_back(step);
    told_.notify_all();
  }
  // The next one, or nothing after that time.
  std::optional<std::string> next(milliseconds wait) {
    std::unique_lock lock(mutex_);
    if (!told_.wait_for(lock, wait, [this] { return !steps_.empty(); })) return std::nullopt;
    std::string step = std::move(steps_.front());
    steps_.pop_front();
    return step;
  }

 private:
  std::mutex mutex_;
  std::condition_variable told_;
  std::deque<std::string> steps_;
};

std::int64_t epoch_ms() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return std::int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1000000;
}

std::uint64_t space_of(int directory, const char* name) {
  struct stat facts{};
  return ::fstatat(directory, name, &facts, AT_SYMLINK_NOFOLLOW) == 0 ? std::uint64_t{512} * facts.st_blocks : 0;
}

// ---------- the box's side ----------
// One new layer a disk, and the record that names them: on a disk of its own each is empty, so both are the same.
class Stacking {
 public:
  Stacking(std::shared_ptr<Box> box, int directory) : box_(std::move(box)), directory_(directory) {}
  ~Stacking() {
    if (!done_) undo();
  }
  Stacking(const Stacking&) = delete;
  Stacking& operator=(const Stacking&) = delete;

  Status begin(image::OperationContext& context) {
    before_ = box_->record();
    const std::string folder = box_->home().path_of(before_.id);
    for (std::size_t i = 0; i < before_.disks.size(); ++i) {
      auto& layer = layers_.emplace_back();
      const std::string& overlay = before_.disks[i].overlay;
      if (overlay.empty()) continue;
      const image::ImageInfo info =
          TRY(image::image_info(std::string(folder).append("/").append(overlay),
                                {.format = image::DiskFormat::kQcow2, .shared = true}, context));
      layer = TRY(stack_layer(directory_, folder, i, overlay, info.virtual_bytes, before_.disks[i].bases, context));
    }
    named_ = true;
    return box_->update([this](BoxRecord& record) {
      for (std::size_t i = 0; i < layers_.size(); ++i) {
        if (!layers_[i]) continue;
        record.disks[i].overlay = layers_[i]->name;
        record.disks[i].bases = layers_[i]->bases;
      }
    });
  }

  const std::vector<std::optional<NewLayer>>& layers() const { return layers_; }
  // As they were before: what the snapshot is of.
  std::vector<SnapshotDisk> disks() const {
    std::vector<SnapshotDisk> disks;
    for (std::size_t i = 0; i < before_.disks.size(); ++i) {
      const DiskRecord& disk = before_.disks[i];
      disks.push_back(
          {.overlay = disk.overlay, .bases = disk.bases, .size = layers_[i] ? layers_[i]->size : std::uint64_t{0}});
    }
    return disks;
  }
  std::uint64_t space() const {
    std::uint64_t space = 0;
    for (const DiskRecord& disk : before_.disks)
      if (!disk.overlay.empty()) space += space_of(directory_, disk.overlay.c_str());
    return space;
  }
  void keep() { done_ = true; }

 private:
  void undo() {
    // A record that names them still is as good: they are empty.
    if (named_ && !box_->update([this](BoxRecord& record) { record.disks = before_.disks; }).ok()) return;
    for (const auto& layer : layers_)
      if (layer) ::unlinkat(directory_, layer->name.c_str(), 0);
  }

  const std::shared_ptr<Box> box_;
  const int directory_;
  BoxRecord before_;
  std::vector<std::optional<NewLayer>> layers_;
  bool named_ = false;  // in the record, it may be
  bool done_ = false;
};

// ---------- the machine's side ----------
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

// A machine that is looked at as it runs. What it changed of QEMU's it takes back, unless the layers were switched.
class LiveLook {
 public:
  LiveLook(std::shared_ptr<Box> box, Reactor& reactor, std::vector<Machine::Chain>& chains, int directory)
      : box_(std::move(box)),
        reactor_(reactor),
        call_(calls_to(box_, reactor)),
        chains_(chains),
        directory_(directory) {}
  ~LiveLook() {
    if (!switched_) {
      for (const auto& [disk, node] : nodes_) [[maybe_unused]]
        const auto gone = call_("blockdev-del", {{"node-name", node}}, {});
    }
  }
  LiveLook(const LiveLook&) = delete;
  LiveLook& operator=(const LiveLook&) = delete;

  // QEMU has each new layer open. The file of a layer stays one that can be written after the layer itself is not any
  // more: a set of descriptors has only what was put into it, and QEMU lets its locks go by asking, not by closing.
  Status add_layers(const Stacking& stacking) {
    for (std::size_t i = 0; i < stacking.layers().size(); ++i) {
      const auto& layer = stacking.layers()[i];
      if (!layer) continue;
      UniqueFd file = TRY(open_layer_file(layer->name, O_RDWR));
      const std::uint64_t set = TRY(add_to_set(call_, std::move(file)));
      const std::string node = disk_node(i) + "-s" + std::to_string(chains_[i].tried);
      const json added = {{"driver", "qcow2"},
                          {"node-name", node},
                          {"discard", "unmap"},
                          {"file",
                           {{"driver", "file"},
                            {"node-name", node + "-file"},
                            {"filename", "/dev/fdset/" + std::to_string(set)},
                            {"read-only", false},
                            {"discard", "unmap"}}},
                          {"read-only", false},
                          {"backing", nullptr}};
      TRY(call_("blockdev-add", added, {}));
      nodes_.emplace_back(i, node);
    }
    return ok_status();
  }

  // What the guest has not told anybody yet is told, and nothing follows until thaw().
  Status freeze(bool file_systems) {
    frozen_ = std::chrono::steady_clock::now();
    TRY(ask<bool>(reactor_, [box = box_, file_systems](const std::function<void(Result<bool>)>& answer) {
      box->freeze(file_systems, [answer](Status done) {
        answer(done.ok() ? Result<bool>(true) : Result<bool>(std::move(done).error()));
      });
    }));
    return ok_status();
  }
  void thaw() {
    reactor_.post([box = box_] { box->thaw(); });
  }

  Status take_disks() {
    TRY(switch_layers());
    paused_ = std::chrono::steady_clock::now() - frozen_;
    return ok_status();
  }

  // The guest runs on, but for the end of it.
  Status take_all(UniqueFd state, image::OperationContext& context) {
    const auto steps = std::make_shared<MigrationSteps>();
    TRY(ask<bool>(reactor_, [box = box_, steps](const std::function<void(Result<bool>)>& answer) {
      Machine* machine = box->machine();
      if (machine == nullptr) return answer(Error(ErrorCode::kBoxLost, "the box ended meanwhile"));
      machine->on_migration([steps](const std::string& step) { steps->tell(step); });
      answer(true);
    }));
    // A machine that goes on from a template was let read one without its memory; this one holds all of it.
    json capabilities = json::array();
    for (const auto& [name, on] :
         {std::pair("events", true), {"pause-before-switchover", true}, {"x-ignore-shared", false}})
      capabilities.push_back({{"capability", name}, {"state", on}});
    TRY(call_("migrate-set-capabilities", {{"capabilities", capabilities}}, {}));
    TRY(call_("migrate-set-parameters", {{"max-bandwidth", std::uint64_t{1} << 40}}, {}));
    TRY(call_("getfd", {{"fdname", "state"}}, one(std::move(state))));
    // Not beside a guest that runs: an emulated one that writes much has pages that were changed and are written as
    // they were before, and its copy dies of it.
    stopped_ = std::chrono::steady_clock::now();
    TRY(call_("stop", json::object(), {}));
    Status written = start_writing();
    Status done = written.ok() ? follow(*steps, context) : std::move(written);
    if (!done.ok()) give_up(*steps);
    const auto resumed = call_("cont", json::object(), {});
    if (stopped_) paused_ = std::chrono::steady_clock::now() - *stopped_;
    reactor_.post([box = box_] {
      if (Machine* machine = box->machine_there()) machine->on_migration(nullptr);
    });
    TRY(std::move(done));
    return resumed.ok() ? ok_status() : Status(resumed.error());
  }

  double paused_ms() const { return std::chrono::duration<double, std::milli>(paused_).count(); }
  bool switched() const { return switched_; }

 private:
  Result<UniqueFd> open_layer_file(const std::string& name, int how) const {
    UniqueFd file(::openat(directory_, name.c_str(), how | O_NOFOLLOW | O_CLOEXEC));
    if (!file.valid()) return os_error(errno, "cannot open a disk's layer", name);
    return file;
  }

  Status start_writing() {
    TRY(call_("migrate", {{"uri", "fd:state"}}, {}));
    return ok_status();
  }

  // All disks in one step.
  Status switch_layers() {
    json actions = json::array();
    for (const auto& [disk, node] : nodes_)
      actions.push_back({{"type", "blockdev-snapshot"}, {"data", {{"node", chains_[disk].active}, {"overlay", node}}}});
    const auto done = actions.empty() ? Result<json>(json()) : call_("transaction", {{"actions", actions}}, {});
    // Not answered is not refused: QEMU may still do it, and the new layers are right either way.
    switched_ = done.ok() || done.error().code != ErrorCode::kIo;
    if (!done.ok()) return done.error();
    for (const auto& [disk, node] : nodes_) {
      Machine::Chain& chain = chains_[disk];
      chain.below.insert(chain.below.begin(), std::exchange(chain.active, node));
    }
    return ok_status();
  }

  Status follow(MigrationSteps& steps, image::OperationContext& context) {
    const auto began = std::chrono::steady_clock::now();
    while (true) {
      TRY(context.cancel.check());
      const auto past = std::chrono::steady_clock::now() - began;
      if (past > kMostMigration) return Error(ErrorCode::kIo, "the guest's memory could not be written in time");
      const auto step = steps.next(kGlance);
      if (!step) {
        // Its end is told here, too.
        TRY(call_("query-status", json::object(), {}));
      } else if (*step == "pre-switchover") {
        TRY(switch_layers());
        TRY(call_("migrate-continue", {{"state", "pre-switchover"}}, {}));
      } else if (*step == "completed") {
        if (!switched_) return Error(ErrorCode::kIo, "QEMU finished out of turn");
        return await_finish();
      } else if (*step == "failed" || *step == "cancelled") {
        return why_not();
      }
    }
  }

  Error why_not() {
    const auto answer = call_("query-migrate", json::object(), {});
    std::string why = answer.ok() ? text_at(answer.value(), "error-desc") : std::string();
    if (why.empty()) why = last_words();
    return Error(ErrorCode::kIo, "QEMU could not write the guest's memory: " + why)
        .advise("Is there room for it in the runtime's home?");
  }

  // Some failures it tells only there.
  std::string last_words() {
    const auto said = ask<std::string>(reactor_, [box = box_](const std::function<void(Result<std::string>)>& answer) {
      Machine* machine = box->machine_there();
      answer(machine != nullptr ? machine->messages() : std::string());
    });
    return said.ok() && !said.value().empty() ? said.value() : "it does not say why";
  }

  // QEMU tells it a moment before it is so.
  Status await_finish() {
    for (const auto end = std::chrono::steady_clock::now() + kReactorPatience;;) {
      const json status = TRY(call_("query-status", json::object(), {}));
      if (text_at(status, "status") == "postmigrate") return ok_status();
      if (std::chrono::steady_clock::now() > end) return Error(ErrorCode::kIo, "QEMU does not finish the snapshot");
    }
  }

  void give_up(MigrationSteps& steps) {
    if (!call_("migrate_cancel", json::object(), {}).ok()) return;
    for (int looks = 0; looks < 40; ++looks) {
      const auto step = steps.next(kGlance);
      if (step == "cancelled" || step == "failed" || step == "completed") return;
    }
  }

  const std::shared_ptr<Box> box_;
  Reactor& reactor_;
  const QmpCall call_;
  std::vector<Machine::Chain>& chains_;
  const int directory_;
  std::vector<std::pair<std::size_t, std::string>> nodes_;
  std::optional<std::chrono::steady_clock::time_point> stopped_;
  std::chrono::steady_clock::time_point frozen_;
  std::chrono::steady_clock::duration paused_{0};
  bool switched_ = false;
};

Status take_running(const std::shared_ptr<Box>& box, Reactor& reactor, std::vector<Machine::Chain>& chains,
                    int directory, const UniqueFd& place, SnapshotRecord& record, image::OperationContext& context) {
  Stacking stacking(box, directory);
  TRY(stacking.begin(context));
  LiveLook look(box, reactor, chains, directory);
  TRY(look.add_layers(stacking));
  UniqueFd state;
  if (record.memory) {
    state = UniqueFd(::openat(place.get(), "state", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!state.valid()) return os_error(errno, "cannot make a file for the machine's memory");
  }
  Status taken = look.freeze(!record.memory);
  if (taken.ok()) taken = record.memory ? look.take_all(std::move(state), context) : look.take_disks();
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

Status remove_snapshot(const std::shared_ptr<Box>& box, Reactor& reactor, const std::string& name, const IsHeld& held) {
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
    lock.value().let_go();
  }
  release(box, reactor, std::move(reserved.value().chains));
  return ok_status();
}

}  // namespace sluicebox::box
