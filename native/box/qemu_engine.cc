#include "box/qemu_engine.h"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <ctime>
#include <utility>

#include "box/conversation.h"
#include "box/directory_disk.h"
#include "box/disks.h"
#include "box/host_clock.h"
#include "box/initrd.h"
#include "box/kernel.h"
#include "box/qemu_command.h"
#include "box/qmp_dialogue.h"
#include "protocol/messages.h"

namespace sluicebox::box {

namespace {

using protocol::Type;
using Deadline = std::chrono::steady_clock::time_point;

// QEMU's own memory beside the guest's, and its threads beside the guest's processors.
constexpr std::uint64_t kQemuMemory = std::uint64_t{192} << 20;
constexpr std::uint64_t kQemuProcesses = 96;
constexpr std::uint64_t kQemuStorage = std::uint64_t{16} << 20;
// A user of the namespaces' own range.
constexpr std::uint32_t kQemuUser = 1000;
constexpr const char* kQemu = "/usr/bin/qemu-system-x86_64";
constexpr std::size_t kEntropy = 64;
// Of the walls' executions, as the host numbers them: none of the machine's.
constexpr std::uint32_t kConverterChannel = 0x7fffffff;

// Both ends close on exec and do not block.
Result<std::pair<UniqueFd, UniqueFd>> stream_pair() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0)
    return os_error(errno, "cannot make a socket pair");
  return std::pair(UniqueFd(ends[0]), UniqueFd(ends[1]));
}

Result<UniqueFd> copy_of(const UniqueFd& fd) {
  UniqueFd copy(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 0));
  if (!copy.valid()) return os_error(errno, "cannot double a descriptor");
  return copy;
}

// `maps`: its memory is mapped from a template. What it touches of that and was never used costs a page there, too.
protocol::Launch walls_of(const BoxRecord& record, bool maps) {
  const BoxSpec& spec = record.spec;
  protocol::Launch launch;
  launch.id = record.id;
  launch.hostname = "qemu";
  launch.keep = spec.keep;
  launch.temporary_layer = true;
  launch.storage_bytes = kQemuStorage;
  launch.memory_bytes = {.value = spec.memory_bytes.value * (maps ? 2 : 1) + kQemuMemory, .asked = false};
  launch.processes = {.value = kQemuProcesses + spec.vcpus.value, .asked = false};
  launch.first_uid = record.first_uid;
  return launch;
}

Result<protocol::Machine> machine_of(const BoxRecord& record) {
  protocol::Machine machine;
  machine.hostname = record.id.substr(0, 12);
  machine.machine_id = record.id + std::string(32 - record.id.size(), '0');
  machine.entropy.resize(kEntropy);
  if (::getrandom(machine.entropy.data(), kEntropy, 0) != static_cast<ssize_t>(kEntropy))
    return os_error(errno, "cannot get random bytes");
  machine.root_serial = disk_serial(0);
  machine.root_readonly = record.spec.disks[0].mode == DiskMode::kReadonly;
  machine.layer_bytes = machine.root_readonly ? record.spec.memory_bytes.value / 2 : 0;
  machine.processes = record.spec.processes.value;
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  machine.realtime_ns = std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
  return machine;
}

// QEMU's descriptors by their numbers there, which begin after stdio's.
class Passed {
 public:
  int add(int fd) {
    descriptors_.push_back(fd);
    return static_cast<int>(descriptors_.size()) + 2;
  }
  // With what stdio needs ahead of them.
  std::vector<int> with_output(int output) const {
    std::vector<int> all = {output};
    all.insert(all.end(), descriptors_.begin(), descriptors_.end());
    return all;
  }
  std::uint32_t count() const { return static_cast<std::uint32_t>(descriptors_.size()); }

 private:
  std::vector<int> descriptors_;
};

}  // namespace

// One boot: QEMU in its walls, and the guest's agent.
class QemuEngine::Boot {
 public:
  Boot(const BoxRecord& record, LaunchedBox& walls, const CancelToken& cancel, Deadline deadline)
      : record_(record), walls_(walls), cancel_(cancel), deadline_(deadline) {}

  Status start_qemu(int kernel, int initrd, const std::vector<OpenDisk>& disks) {
    Passed passed;
    QemuPlan plan = plan_of(disks, passed);
    plan.kernel = passed.add(kernel);
    plan.initrd = passed.add(initrd);
    return spawn_qemu(kQemuChannel, plan, passed);
  }

  // A QEMU that takes up what another wrote of a machine, and lays it out to be mapped. It has ended when this returns.
  Result<Template> make_template(const MemoryImage& image, const std::vector<OpenDisk>& disks) {
    const std::uint64_t size = record_.spec.memory_bytes.value;
    Template made{.memory = TRY(blank_memory(size)), .devices = TRY(blank_memory(0))};
    Passed passed;
    QemuPlan plan = plan_of({}, passed);
    for (const OpenDisk& disk : disks)
      plan.disks.push_back({.writable = disk.writable, .layers = {}, .size = disk.size});
    plan.memory = passed.add(made.memory.get());
    plan.memory_shared = true;
    TRY(spawn_qemu(kConverterChannel, plan, passed));
    {
      QmpDialogue qmp = dialogue();
      TRY(qmp.greet());
      TRY(allow(qmp, {"events"}));
      TRY(take_up(qmp, image.state));
      // Memory that is shared is left where it is.
      TRY(allow(qmp, {"x-ignore-shared"}));
      TRY(qmp.execute("getfd", {{"fdname", "devices"}}, made.devices.get()));
      TRY(qmp.execute("migrate", {{"uri", "fd:devices"}}));
      TRY(qmp.await_migration());
      TRY(qmp.execute("quit"));
    }
    Conversation walls(walls_.session, "the namespaces around QEMU", cancel_, deadline_);
    if (TRY(walls.next()).header.type != Type::kExited) return Error(ErrorCode::kBoxStart, "QEMU does not end");
    parts_.reset();
    agent_.reset();
    TRY(seal(made.memory, size));
    TRY(seal(made.devices, 0));
    return made;
  }

  // The guest runs when this returns, and nobody has greeted its agent yet.
  Status go_on_from(const Template& from, const std::vector<OpenDisk>& disks) {
    Passed passed;
    QemuPlan plan = plan_of(disks, passed);
    plan.memory = passed.add(from.memory.get());
    TRY(spawn_qemu(kQemuChannel, plan, passed));
    QmpDialogue qmp = dialogue();
    TRY(qmp.greet());
    TRY(allow(qmp, {"events", "x-ignore-shared"}));
    TRY(take_up(qmp, from.devices));
    TRY(qmp.execute("cont"));
    return ok_status();
  }

  // It is told what it is only once it listens: the time of day is then as long under way as a message.
  Status meet_guest() {
    Conversation guest(agent_, "the guest's agent", cancel_, deadline_);
    guest.meanwhile(walls_.session.get(), [this] { return hear_walls(); });
    for (Console* console : {&parts_->console, &parts_->messages}) {
      guest.meanwhile(console->get(), [console] {
        console->read();
        return ok_status();
      });
    }
    TRY(greet_agent(guest));
    phase_ = "boot";
    TRY(hear_greeting(guest));
    phase_ = "agent";
    const protocol::Machine machine = TRY(machine_of(record_));
    TRY(guest.send({.type = Type::kMachine, .request = 1}, protocol::encode(machine)));
    const protocol::Message answer = TRY(guest.next());
    if (answer.header.type == Type::kMachineReady) return ok_status();
    if (answer.header.type != Type::kMachineFailed)
      return Error(ErrorCode::kBoxStart, "the guest's agent answered oddly");
    const protocol::MachineFailed failed = TRY(protocol::decode_machine_failed(answer.payload));
    Error error = os_error(static_cast<int>(failed.os_error), "the guest cannot " + failed.step);
    error.code = ErrorCode::kBoxStart;
    return error;
  }

  // What the failure of a boot has to say beside itself.
  Error explain(Error why) {
    if (why.code == ErrorCode::kClosed) why = Error(ErrorCode::kBoxStart, "the box did not start: QEMU ended");
    if (why.code != ErrorCode::kBoxStart) return why;
    why.phase = phase_;
    if (!parts_) return why;
    for (Console* console : {&parts_->console, &parts_->messages}) {
      if (console->valid()) console->read();
      why.output += console->tail();
    }
    return why;
  }

  void finish(LaunchedBox& box) {
    parts_->walls = std::exchange(box.session, std::move(agent_));
    box.machine = std::make_unique<Machine>(std::move(*parts_));
  }

 private:
  QemuPlan plan_of(const std::vector<OpenDisk>& disks, Passed& passed) const {
    QemuPlan plan{.memory_bytes = record_.spec.memory_bytes.value,
                  .vcpus = static_cast<unsigned>(record_.spec.vcpus.value),
                  .time_stamp_khz = time_stamp_khz(),
                  .disks = {}};
    for (const OpenDisk& disk : disks) {
      QemuDisk& planned = plan.disks.emplace_back(QemuDisk{.writable = disk.writable, .layers = {}, .size = disk.size});
      for (const OpenLayer& layer : disk.layers)
        planned.layers.push_back({.format = layer.format, .fd = passed.add(layer.file.get())});
    }
    return plan;
  }

  Status spawn_qemu(std::uint32_t channel, QemuPlan& plan, Passed& passed) {
    auto [agent, their_agent] = TRY(stream_pair());
    auto [qmp, their_qmp] = TRY(stream_pair());
    auto [console, their_console] = TRY(stream_pair());
    auto [messages, their_messages] = TRY(stream_pair());
    // Only our end is not to wait: what QEMU says while it starts is written at once.
    ::fcntl(their_messages.get(), F_SETFL, 0);
    plan.agent = passed.add(their_agent.get());
    plan.qmp = passed.add(their_qmp.get());
    plan.console = passed.add(their_console.get());
    protocol::Spawn spawn;
    spawn.argv = qemu_command(plan);
    spawn.cwd = "/";
    if (walls_.first_uid != 0)
      spawn.user = {.kind = protocol::User::Kind::kIds, .name = {}, .uid = kQemuUser, .gid = kQemuUser};
    spawn.out = protocol::Stdio::kPassed;
    spawn.err = protocol::Stdio::kStdout;
    spawn.extra = passed.count();
    parts_.emplace(MachineParts{.walls = {},
                                .qmp = std::move(qmp),
                                .console = Console(std::move(console)),
                                .messages = Console(std::move(messages))});
    agent_ = protocol::FrameLink(std::move(agent), protocol::FrameLink::Kind::kStream);
    Conversation walls(walls_.session, "the namespaces around QEMU", cancel_, deadline_);
    TRY(walls.send({.type = Type::kSpawn, .channel = channel, .request = 1}, protocol::encode(spawn),
                   passed.with_output(their_messages.get())));
    const protocol::Message answer = TRY(walls.next());
    if (answer.header.type == Type::kSpawned) return ok_status();
    if (answer.header.type != Type::kSpawnFailed) return Error(ErrorCode::kInternal, "QEMU's spawn was answered oddly");
    const protocol::SpawnFailed failed = TRY(protocol::decode_spawn_failed(answer.payload));
    Error error = os_error(static_cast<int>(failed.os_error), "cannot start QEMU", kQemu);
    error.code = ErrorCode::kBoxStart;
    return error;
  }

  QmpDialogue dialogue() {
    return {parts_->qmp.get(), walls_.session.get(), [this] { return hear_walls(); }, cancel_, deadline_};
  }

  static Status allow(QmpDialogue& qmp, std::initializer_list<const char*> capabilities) {
    nlohmann::json list = nlohmann::json::array();
    for (const char* name : capabilities) list.push_back({{"capability", name}, {"state", true}});
    TRY(qmp.execute("migrate-set-capabilities", {{"capabilities", list}}));
    return ok_status();
  }

  static Status take_up(QmpDialogue& qmp, const UniqueFd& stream) {
    const UniqueFd fresh = TRY(from_the_beginning(stream));
    TRY(qmp.execute("getfd", {{"fdname", "state"}}, fresh.get()));
    TRY(qmp.execute("migrate-incoming", {{"uri", "fd:state"}}));
    return qmp.await_migration();
  }

  // QEMU's end, or that of the walls, is the only thing that is said there.
  Status hear_walls() {
    std::array<std::byte, protocol::kMaxPayload> buffer{};
    const auto frame = walls_.session.receive(buffer);
    if (!frame.ok() && frame.error().os_error == EAGAIN) return ok_status();
    return Error(ErrorCode::kBoxStart, "the box did not start: QEMU ended");
  }

  const BoxRecord& record_;
  LaunchedBox& walls_;
  const CancelToken& cancel_;
  const Deadline deadline_;
  const char* phase_ = "prepare";
  std::optional<MachineParts> parts_;
  protocol::FrameLink agent_;
};

Engine::Means QemuEngine::means() {
  Means means;
  struct stat file{};
  if (::access(kQemu, X_OK) == 0 && ::stat(kQemu, &file) == 0) {
    means.qemu = kQemu;
    means.identity = std::to_string(file.st_size) + "-" + std::to_string(file.st_mtim.tv_sec);
  } else {
    means.missing = Error(ErrorCode::kUnsupported, "a virtual machine needs QEMU, which is not installed")
                        .on(kQemu)
                        .advise("Install it: apt-get install qemu-system-x86");
  }
  auto kernel = find_kernel(programs_);
  if (kernel.ok())
    means.kernel = kernel.value().release;
  else if (!means.missing)
    means.missing = std::move(kernel).error();
  return means;
}

Status QemuEngine::make_disks(BoxRecord& record, const std::string& directory) {
  if (auto missing = means().missing) return *std::move(missing);
  TRY(boot_files());
  if (record.spec.directory) {
    const std::string path = directory + "/root.raw";
    TRY(make_directory_disk(*record.spec.directory, path, record.spec.storage_asked ? record.spec.storage_bytes : 0));
    DiskSpec root{.path = path, .format = "raw", .mode = DiskMode::kOverlay};
    record.spec.disks.insert(record.spec.disks.begin(), std::move(root));
  }
  record.disks = TRY(box::make_disks(record.spec, directory, *policy_));
  return ok_status();
}

Result<QemuEngine::BootFiles> QemuEngine::boot_files() {
  MutexLock lock(mutex_);
  if (!files_.kernel.valid()) {
    const GuestKernel kernel = TRY(find_kernel(programs_));
    const UniqueFd agent = TRY(walls_->agent());
    UniqueFd initrd = TRY(build_initrd(kernel, agent.get()));
    files_ = {.kernel = TRY(unpack_kernel(kernel)), .initrd = std::move(initrd)};
  }
  return BootFiles{.kernel = TRY(copy_of(files_.kernel)), .initrd = TRY(copy_of(files_.initrd))};
}

std::shared_ptr<QemuEngine::Kept> QemuEngine::kept(const std::string& snapshot) {
  MutexLock lock(mutex_);
  auto& entry = templates_[snapshot];
  if (!entry) entry = std::make_shared<Kept>();
  entry->used = std::chrono::steady_clock::now();
  return entry;
}

void QemuEngine::retire(std::chrono::steady_clock::duration) {
  const auto oldest = std::chrono::steady_clock::now() - kTemplateAge;
  MutexLock lock(mutex_);
  std::erase_if(templates_, [&](const auto& entry) { return entry.second->used <= oldest; });
}

void QemuEngine::close() {
  MutexLock lock(mutex_);
  templates_.clear();
}

Status QemuEngine::go_on(Boot& boot, const MemoryImage& memory, const std::vector<OpenDisk>& disks) {
  const auto kept = this->kept(memory.snapshot);
  std::shared_ptr<const Template> from;
  {
    MutexLock lock(kept->making);
    if (!kept->ready) kept->ready = std::make_shared<const Template>(TRY(boot.make_template(memory, disks)));
    from = kept->ready;
  }
  return boot.go_on_from(*from, disks);
}

Result<LaunchedBox> QemuEngine::launch(const BoxRecord& record, Home::Held held, const MemoryImage* memory,
                                       const CancelToken& cancel, Deadline deadline) {
  if (memory != nullptr && memory->qemu != means().identity) {
    return Error(ErrorCode::kUnsupported, "the snapshot's memory was written by another QEMU than the one that is here")
        .advise("Go on from its disk alone: memory: false.");
  }
  BootFiles files;
  if (memory == nullptr) files = TRY(boot_files());
  const std::string directory = TRY(path_of_fd(held.directory.get()));
  const std::vector<OpenDisk> disks = TRY(open_disks(record, directory, *policy_));
  LaunchedBox box =
      TRY(walls_->build_walls(walls_of(record, memory != nullptr), UniqueFd(), std::move(held), cancel, deadline));
  Boot boot(record, box, cancel, deadline);
  Status done =
      memory != nullptr ? go_on(boot, *memory, disks) : boot.start_qemu(files.kernel.get(), files.initrd.get(), disks);
  if (done.ok()) done = boot.meet_guest();
  if (!done.ok()) {
    Error why = boot.explain(std::move(done).error());
    box.session.reset();
    take_back({.process = std::move(box.process), .control = std::move(box.control)});
    return why;
  }
  boot.finish(box);
  return box;
}

}  // namespace sluicebox::box
