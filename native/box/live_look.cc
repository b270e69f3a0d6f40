#include "box/live_look.h"

#include <fcntl.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "box/qemu_command.h"
#include "box/qmp_words.h"

namespace sluicebox::box {

namespace {

using nlohmann::json;
using std::chrono::milliseconds;

// The guest stands still for no longer than this.
constexpr std::chrono::seconds kMostWriting{120};
// How long a wait goes on before it looks whether it is still wanted.
constexpr milliseconds kGlance{50};
constexpr milliseconds kMoment{2};  // between two tries

Result<UniqueFd> open_layer_file(int directory, const std::string& name) {
  UniqueFd file(::openat(directory, name.c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC));
  if (!file.valid()) return os_error(errno, "cannot open a disk's layer", name);
  return file;
}

}  // namespace

// The steps of a migration, as they are told on the reactor's thread.
class LiveLook::Steps {
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

LiveLook::LiveLook(std::shared_ptr<Box> box, Reactor& reactor, std::vector<Machine::Chain>& chains, int directory)
    : box_(std::move(box)), reactor_(reactor), call_(calls_to(box_, reactor)), chains_(chains), directory_(directory) {}

LiveLook::~LiveLook() {
  if (switched_) return;
  for (const auto& [disk, node] : nodes_) [[maybe_unused]]
    const auto gone = call_("blockdev-del", {{"node-name", node}}, {});
}

// ---------- disks ----------
// The file of a layer stays one that can be written after the layer itself is not any more: a set of descriptors has
// only what was put into it, and QEMU lets its locks go by asking, not by closing.
Status LiveLook::add_layers(const std::vector<std::optional<NewLayer>>& layers) {
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const auto& layer = layers[i];
    if (!layer) continue;
    UniqueFd file = TRY(open_layer_file(directory_, layer->name));
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

// All disks in one step.
Status LiveLook::switch_layers() {
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

Status LiveLook::take_disks() {
  TRY(switch_layers());
  paused_ = std::chrono::steady_clock::now() - frozen_;
  return ok_status();
}

// ---------- silence ----------
Status LiveLook::freeze(bool file_systems) {
  frozen_ = std::chrono::steady_clock::now();
  TRY(ask<bool>(reactor_, [box = box_, file_systems](const std::function<void(Result<bool>)>& answer) {
    box->freeze(file_systems, [answer](Status done) {
      answer(done.ok() ? Result<bool>(true) : Result<bool>(std::move(done).error()));
    });
  }));
  return ok_status();
}

void LiveLook::thaw() {
  reactor_.post([box = box_] { box->thaw(); });
}

// ---------- memory ----------
Status LiveLook::take_all(UniqueFd state, const CancelToken& cancel) {
  const auto steps = std::make_shared<Steps>();
  TRY(ask<bool>(reactor_, [box = box_, steps](const std::function<void(Result<bool>)>& answer) {
    Machine* machine = box->machine();
    if (machine == nullptr) return answer(Error(ErrorCode::kBoxLost, "the box ended meanwhile"));
    machine->on_migration([steps](const std::string& step) { steps->tell(step); });
    answer(true);
  }));
  const auto stopped = std::chrono::steady_clock::now();
  Status written = write_memory(std::move(state), *steps, cancel);
  if (!written.ok()) give_up(*steps);
  Status resumed = go_on();
  paused_ = std::chrono::steady_clock::now() - stopped;
  reactor_.post([box = box_] {
    if (Machine* machine = box->machine_there()) machine->on_migration(nullptr);
  });
  TRY(std::move(written));
  return resumed;
}

// QEMU tells that a migration has ended, whichever way, a moment before it lets the guest go on: until then it refuses.
Status LiveLook::go_on() {
  for (const auto end = std::chrono::steady_clock::now() + kReactorPatience;;) {
    const auto resumed = call_("cont", json::object(), {});
    if (resumed.ok()) return ok_status();
    if (resumed.error().code != ErrorCode::kIo || std::chrono::steady_clock::now() > end) return resumed.error();
    std::this_thread::sleep_for(kMoment);
  }
}

Status LiveLook::write_memory(UniqueFd state, Steps& steps, const CancelToken& cancel) {
  // A machine that goes on from a template was let read one without its memory; this one holds all of it.
  json capabilities = json::array();
  for (const auto& [name, on] :
       {std::pair("events", true), {"pause-before-switchover", true}, {"x-ignore-shared", false}})
    capabilities.push_back({{"capability", name}, {"state", on}});
  TRY(call_("migrate-set-capabilities", {{"capabilities", capabilities}}, {}));
  TRY(call_("migrate-set-parameters", {{"max-bandwidth", std::uint64_t{1} << 40}}, {}));
  TRY(call_("getfd", {{"fdname", "state"}}, one(std::move(state))));
  // Not beside a guest that runs: an emulated one that writes much has pages that were changed and are written as they
  // were before, and its copy dies of it.
  TRY(call_("stop", json::object(), {}));
  TRY(call_("migrate", {{"uri", "fd:state"}}, {}));
  return follow(steps, cancel);
}

Status LiveLook::follow(Steps& steps, const CancelToken& cancel) {
  const auto began = std::chrono::steady_clock::now();
  while (true) {
    TRY(cancel.check());
    const auto past = std::chrono::steady_clock::now() - began;
    if (past > kMostWriting) return Error(ErrorCode::kIo, "the guest's memory could not be written in time");
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

// QEMU tells it a moment before it is so.
Status LiveLook::await_finish() {
  for (const auto end = std::chrono::steady_clock::now() + kReactorPatience;;) {
    const json status = TRY(call_("query-status", json::object(), {}));
    if (text_at(status, "status") == "postmigrate") return ok_status();
    if (std::chrono::steady_clock::now() > end) return Error(ErrorCode::kIo, "QEMU does not finish the snapshot");
  }
}

Error LiveLook::why_not() {
  const auto answer = call_("query-migrate", json::object(), {});
  std::string why = answer.ok() ? text_at(answer.value(), "error-desc") : std::string();
  if (why.empty()) why = last_words();
  return Error(ErrorCode::kIo, "QEMU could not write the guest's memory: " + why)
      .advise("Is there room for it in the runtime's home?");
}

// Some failures it tells only there.
std::string LiveLook::last_words() {
  const auto said = ask<std::string>(reactor_, [box = box_](const std::function<void(Result<std::string>)>& answer) {
    Machine* machine = box->machine_there();
    answer(machine != nullptr ? machine->messages() : std::string());
  });
  return said.ok() && !said.value().empty() ? said.value() : "it does not say why";
}

void LiveLook::give_up(Steps& steps) {
  if (!call_("migrate_cancel", json::object(), {}).ok()) return;
  for (int looks = 0; looks < 40; ++looks) {
    const auto step = steps.next(kGlance);
    if (step == "cancelled" || step == "failed" || step == "completed") return;
    // Cancelled just as it was about to pause for the switch, QEMU 7.2 waits to be told to go on with cancelling.
    if (!step) (void)call_("migrate-continue", {{"state", "cancelling"}}, {});
  }
}

}  // namespace sluicebox::box
