#include "addon/box_operations.h"

#include <chrono>
#include <ctime>
#include <thread>
#include <utility>

#include "base/path_policy.h"
#include "base/progress.h"
#include "box/layers.h"
#include "box/snapshots.h"
#include "box/templates.h"

namespace sluicebox::addon {

namespace {

using box::State;

constexpr std::chrono::seconds kDying{30};
constexpr std::chrono::milliseconds kLook{5};
constexpr std::chrono::seconds kSpareAge{10};
// Of a keeper that is asked to let somebody in, and of the agent that greets.
constexpr std::chrono::seconds kEntryTime{30};

std::int64_t now_ms() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return std::int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1000000;
}

struct Added {
  box::BoxRecord record;
  std::optional<box::Home::Held> held;
};

// The record of a new box; of an existing one for kReuse, with nothing held.
Result<Added> add_or_find(const box::Home& home, const CreateRequest& request, std::optional<MadeBox>& found) {
  while (true) {
    box::BoxRecord record{
        .id = TRY(box::new_box_id()), .created_at_ms = now_ms(), .first_uid = 0, .spec = request.spec, .disks = {}};
    auto held = home.add(record);
    if (held.ok()) return Added{.record = std::move(record), .held = std::move(held).value()};
    if (held.error().code != ErrorCode::kBoxExists || request.if_exists == IfExists::kError) return Error(held.error());
    auto other = home.find(*request.spec.name);
    if (!other.ok() && other.error().code == ErrorCode::kBoxNotFound) continue;  // gone meanwhile
    if (!other.ok()) return Error(other.error());
    if (request.if_exists == IfExists::kReuse) {
      // Whether it is what was asked for is for the asker to compare.
      found = MadeBox{.open = nullptr, .record = std::move(other->record), .running = other->running, .reused = true};
      return Added{.record = found->record, .held = std::nullopt};
    }
    TRY(home.remove(other->record.id));
  }
}

// Of a box that has ended. PID 1 of a killed keeper dies with it, not in the same moment, and has its lock until then.
void remove_ended(const box::Home& home, const std::string& id) {
  const auto deadline = box::Clock::now() + kDying;
  while (true) {
    const Status removed = home.remove(id);
    if (removed.ok() || box::Clock::now() >= deadline) return;
    if (removed.error().code != ErrorCode::kInUse && removed.error().os_error != EBUSY) return;
    std::this_thread::sleep_for(kLook);
  }
}

// What a clone is a copy of.
struct Original {
  box::BoxRecord record;
  UniqueFd directory;
  box::SnapshotRecord snapshot;
};

Result<Original> original_of(const box::Home& home, box::BoxRecord record, const std::string& snapshot) {
  UniqueFd directory = TRY(home.directory(record.id));
  auto found = TRY(box::find_snapshot(directory.get(), snapshot));
  return Original{.record = std::move(record), .directory = std::move(directory), .snapshot = std::move(found)};
}

// By its id, or as BOX/SNAPSHOT.
Result<Original> find_original(const box::Home& home, const std::string& named) {
  if (const std::size_t slash = named.find('/'); slash != std::string::npos)
    return original_of(home, TRY(home.find(named.substr(0, slash))).record, named.substr(slash + 1));
  if (box::is_box_id(named)) {
    for (box::Home::Entry& entry : TRY(home.list(BoxGround::ignore_problem))) {
      auto found = original_of(home, std::move(entry.record), named);
      if (found.ok() && found.value().snapshot.id == named) return found;
    }
  }
  return Error(ErrorCode::kSnapshotNotFound, "no box of this home has a snapshot with the id \"" + named + "\"")
      .advise("Name it by its id, or as 'BOX/SNAPSHOT', each by name or id.");
}

// A clone's disks, and the memory that it goes on from.
Status copy_box(const box::Home& home, const Original& original, std::optional<bool> with_memory, Added& added,
                const PathPolicy& policy, std::optional<box::MemoryImage>& memory) {
  const box::SnapshotRecord& snapshot = original.snapshot;
  if (with_memory.value_or(snapshot.memory)) {
    if (!snapshot.memory) {
      return Error(ErrorCode::kUnsupported, "the snapshot \"" + snapshot.name + "\" was taken without memory")
          .advise("Take one with memory: true, or clone with memory: false.");
    }
    memory.emplace(box::MemoryImage{.snapshot = snapshot.id,
                                    .qemu = snapshot.qemu,
                                    .state = TRY(box::open_state(original.directory.get(), snapshot.id))});
  }
  const std::string folder = TRY(path_of_fd(added.held->directory.get()));
  NoProgress silent;
  CancelToken cancel;  // of its own: it is a step of something larger
  image::OperationContext context{.policy = policy, .cancel = cancel, .progress = silent};
  context.chain_depth = image::kMaxOwnChainDepth;
  TRY(box::copy_disks(snapshot, original.record, original.directory.get(), added.record, added.held->directory.get(),
                      folder, context));
  // Another process may have removed it meanwhile, and merged a layer that nobody had a link to: it looks for links
  // when the snapshot is gone, and this looks for the snapshot when there are links.
  TRY(box::find_snapshot(original.directory.get(), snapshot.id));
  return home.update(added.record);
}

Status make_disks(const BoxGround& ground, const box::Home& home, const CreateRequest& request, Added& added,
                  std::optional<box::MemoryImage>& memory, event_queue::Operation& operation) {
  if (const auto& from = request.from) {
    const MutexLock turn(from->source->layers_turn());
    const Original original = TRY(original_of(from->source->home(), from->source->record(), from->snapshot));
    return copy_box(home, original, from->memory, added, *ground.policy, memory);
  }
  if (const auto& named = request.named) {
    const Original original = TRY(find_original(home, named->snapshot));
    box::BoxSpec& spec = added.record.spec;
    spec = original.record.spec;
    spec.name = request.spec.name;
    spec.keep = request.spec.keep;
    spec.config = request.spec.config;
    return copy_box(home, original, named->memory, added, *ground.policy, memory);
  }
  if (!added.record.spec.machine) return ok_status();
  const std::string directory = TRY(path_of_fd(added.held->directory.get()));
  TRY(ground.engine->make_disks(added.record, directory, operation.cancel(), operation));
  return home.update(added.record);
}

// What is left of a box goes when it has ended: all of one that is not kept, of another what a killed keeper left.
void tidy_up(const std::shared_ptr<BoxGround>& ground, const std::shared_ptr<const box::Home>& home, OpenBox& open,
             bool keep) {
  open.on_change = [ground, home, keep, weak = std::weak_ptr<box::Box>(open.box)](const box::StateChange& change) {
    const auto box = weak.lock();
    if (!box || (change.state != State::kStopped && change.state != State::kFailed)) return;
    const bool stopped = change.state == State::kStopped;
    if (keep) {
      if (!stopped)
        ground->on_worker([home, box] { [[maybe_unused]] const Status done = home->tidy(box->record().id); });
      return;
    }
    // The keeper has done it, unless it was killed, or could not.
    if (stopped && change.clean) {
      ground->reactor->post([box] { box->set_removed(); });
      return;
    }
    ground->on_worker([ground, home, box, stopped] {
      remove_ended(*home, box->record().id);
      if (stopped) ground->reactor->post([box] { box->set_removed(); });
    });
  };
}

// Of a new box, or of one that was found: `state` is what the home says.
void take_box(const std::shared_ptr<BoxGround>& ground, const std::shared_ptr<const box::Home>& home,
              const std::shared_ptr<OpenBox>& open, const box::BoxRecord& record, State state) {
  open->box = std::make_shared<box::Box>(ground->reactor, ground->engine, home, record, state);
  open->begin(state);
  open->box->listen(open);
  tidy_up(ground, home, *open, record.spec.keep);
}

// What was made ahead, and nobody asked for since, goes.
void retire_later(const std::shared_ptr<BoxGround>& ground, std::chrono::seconds age) {
  ground->reactor->post([weak = std::weak_ptr<BoxGround>(ground), age] {
    const auto here = weak.lock();
    if (!here) return;
    here->reactor->at(box::Clock::now() + age, [weak] {
      const auto still_here = weak.lock();
      if (still_here) still_here->on_worker([still_here] { still_here->engine->retire(kSpareAge); });
    });
  });
}

// Who makes one box often makes another: its start is begun.
void prepare_next(const std::shared_ptr<BoxGround>& ground) {
  ground->engine->prepare();
  retire_later(ground, kSpareAge);
}

}  // namespace

void create_box(const std::shared_ptr<BoxGround>& ground, const CreateRequest& request, std::shared_ptr<OpenBox> open,
                event_queue::Operation& operation, const MadeCallback& done) {
  if (Status wanted = operation.cancel().check(); !wanted.ok()) return done(std::move(wanted).error());
  auto home = ground->home(request.home);
  if (!home.ok()) return done(std::move(home).error());
  std::optional<MadeBox> found;
  auto added = add_or_find(**home, request, found);
  if (!added.ok()) return done(std::move(added).error());
  if (found) {
    if (found->running) return find_box(ground, request.home, found->record.id, open, operation.cancel(), done);
    take_box(ground, *home, open, found->record, State::kStopped);
    found->open = std::move(open);
    return done(std::move(*found));
  }
  std::optional<box::MemoryImage> memory;
  if (Status made = make_disks(*ground, **home, request, *added, memory, operation); !made.ok()) {
    added->held.reset();
    remove_ended(**home, added->record.id);
    return done(std::move(made).error());
  }
  take_box(ground, *home, open, added->record, State::kCreated);
  MadeBox made{.open = open, .record = added->record, .running = request.start, .reused = false};
  if (!request.start) {
    // Held, so that nobody takes it for one that was left behind.
    open->held = std::move(added->held);
    open->memory = std::move(memory);
    if (!request.from && !request.named) open->templates = request.templates;
    return done(std::move(made));
  }
  ground->reactor->post([open] { [[maybe_unused]] const Status begun = open->box->begin_start(); });
  std::optional<box::Templates> templates;
  if (request.templates && !request.from && !request.named) templates.emplace(*request.templates);
  const box::Origin origin{.memory = memory ? &*memory : nullptr, .templates = templates ? &*templates : nullptr};
  // The boot's time, whatever its disks took.
  const auto deadline = box::Clock::now() + request.boot_timeout;
  auto launched = open->box->launch_on_worker(std::move(added->held), origin, operation.cancel(), deadline);
  if (!launched.ok()) remove_ended(**home, added->record.id);
  const bool prepare = launched.ok();
  const auto result = std::make_shared<Result<box::LaunchedBox>>(std::move(launched));
  ground->reactor->post([open, result, made = std::move(made), done] {
    Status started = open->box->finish_start(std::move(*result));
    if (started.ok())
      done(made);
    else
      done(std::move(started).error());
  });
  if (prepare) prepare_next(ground);
  if (memory || templates) retire_later(ground, box::kTemplateAge);
}

void find_box(const std::shared_ptr<BoxGround>& ground, const std::string& home_path, const std::string& id_or_name,
              const std::shared_ptr<OpenBox>& open, const CancelToken& cancel, const MadeCallback& done) {
  auto home = ground->home(home_path);
  if (!home.ok()) return done(std::move(home).error());
  auto entry = (*home)->find(id_or_name);
  if (!entry.ok()) return done(std::move(entry).error());
  MadeBox made{.open = nullptr, .record = std::move(entry->record), .running = entry->running, .reused = true};
  std::shared_ptr<box::RunningBox> running;
  if (made.running) {
    auto directory = (*home)->directory(made.record.id);
    if (!directory.ok()) return done(std::move(directory).error());
    auto joined = box::join_box(directory->get(), cancel, box::Clock::now() + kEntryTime);
    if (!joined.ok()) return done(std::move(joined).error());
    running = std::make_shared<box::RunningBox>(std::move(joined).value());
    made.ownership = running->is_ours ? Ownership::kAdopted : Ownership::kShared;
  }
  // One that runs is joined below.
  take_box(ground, *home, open, made.record, running ? State::kCreated : State::kStopped);
  made.open = open;
  if (!running) return done(std::move(made));
  ground->reactor->post([open, running, made = std::move(made), done] {
    Status joined = open->box->join(std::move(*running));
    joined.ok() ? done(made) : done(std::move(joined).error());
  });
}

void start_box(const std::shared_ptr<BoxGround>& ground, const std::shared_ptr<OpenBox>& open,
               const std::shared_ptr<event_queue::Operation>& operation, std::chrono::milliseconds boot_timeout,
               const std::function<void(Status)>& done) {
  ground->reactor->post([=] {
    if (Status begun = open->box->begin_start(); !begun.ok()) return done(std::move(begun));
    ground->on_worker(operation, [=] {
      std::optional<box::Home::Held> held;
      std::optional<box::Templates> templates;
      {
        const MutexLock turn(open->box->layers_turn());
        held = std::exchange(open->held, std::nullopt);
        if (const auto path = std::exchange(open->templates, std::nullopt); path && held) templates.emplace(*path);
      }
      // It goes on from there once: a machine that got as far as to write to its disks has left that moment.
      const auto memory = std::exchange(open->memory, std::nullopt);
      const box::Origin origin{.memory = memory ? &*memory : nullptr, .templates = templates ? &*templates : nullptr};
      const auto result = std::make_shared<Result<box::LaunchedBox>>(
          open->box->launch_on_worker(std::move(held), origin, operation->cancel(), box::Clock::now() + boot_timeout));
      if (memory || templates) retire_later(ground, box::kTemplateAge);
      ground->reactor->post([=] { done(open->box->finish_start(std::move(*result))); });
    });
  });
}

Status restore_box(const BoxGround& ground, OpenBox& open, const std::string& name, bool check_only) {
  const MutexLock turn(open.box->layers_turn());
  const box::BoxRecord record = open.box->record();
  const UniqueFd directory = TRY(open.box->home().directory(record.id));
  const box::SnapshotRecord snapshot = TRY(box::find_snapshot(directory.get(), name));
  if (snapshot.memory && snapshot.qemu != ground.engine->means().identity) {
    return Error(ErrorCode::kUnsupported, "the snapshot's memory was written by another QEMU than the one that is here")
        .advise("Clone it from the snapshot's disk alone: box.clone({ from, memory: false }).");
  }
  if (check_only) return ok_status();
  std::optional<box::Home::Held> lock;
  if (!open.held) lock = TRY(open.box->home().hold(record.id));
  std::optional<box::MemoryImage> memory;
  if (snapshot.memory) {
    memory.emplace(box::MemoryImage{
        .snapshot = snapshot.id, .qemu = snapshot.qemu, .state = TRY(box::open_state(directory.get(), snapshot.id))});
  }
  NoProgress silent;
  CancelToken cancel;  // of its own: it is a step of something larger
  image::OperationContext context{.policy = *ground.policy, .cancel = cancel, .progress = silent};
  context.chain_depth = image::kMaxOwnChainDepth;
  auto disks = TRY(box::restore_disks(snapshot, record, directory.get(), open.box->home().path_of(record.id), context));
  TRY(open.box->update([&](box::BoxRecord& changed) { changed.disks = std::move(disks); }));
  open.memory = std::move(memory);
  box::drop_unused_layers(directory.get(), open.box->record());
  if (lock) lock->let_go();
  return ok_status();
}

void remove_box(const std::shared_ptr<BoxGround>& ground, const std::shared_ptr<OpenBox>& open,
                const std::shared_ptr<event_queue::Operation>& operation, const std::function<void(Status)>& done) {
  ground->reactor->post([=] {
    if (open->box->state() == State::kRemoved) return done(ok_status());
    if (Status may = open->box->check_removable(); !may.ok()) return done(std::move(may));
    ground->on_worker(operation, [=] {
      const MutexLock turn(open->box->layers_turn());
      open->let_go();
      Status removed = open->box->home().remove(open->box->record().id);
      ground->reactor->post([=] {
        if (removed.ok()) open->box->set_removed();
        done(removed);
      });
    });
  });
}

void destroy_box(const std::shared_ptr<BoxGround>& ground, const std::shared_ptr<OpenBox>& open) {
  ground->reactor->post([ground, open] {
    const auto remove = [ground, open] {
      ground->on_worker([open] {
        open->let_go();
        remove_ended(open->box->home(), open->box->record().id);
        open->box->unlisten();
      });
    };
    const State state = open->box->state();
    if (state != State::kRunning && state != State::kPaused && state != State::kStopping) return remove();
    open->on_change = [remove](const box::StateChange& change) {
      if (change.state == State::kStopped || change.state == State::kFailed) remove();
    };
    open->box->stop(0, std::chrono::milliseconds(0));
  });
}

}  // namespace sluicebox::addon
