#include "box/qemu_boot.h"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <ctime>
#include <thread>
#include <utility>

#include "box/host_clock.h"
#include "box/qmp_words.h"
#include "protocol/messages.h"

namespace sluicebox::box {

namespace {

using nlohmann::json;
using protocol::Type;

// A user of the namespaces' own range.
constexpr std::uint32_t kQemuUser = 1000;
constexpr std::size_t kEntropy = 64;
// Of the walls' executions, as the host numbers them: none of the machine's.
constexpr std::uint32_t kConverterChannel = 0x7fffffff;
// QEMU's own bound is the speed of a network.
constexpr std::uint64_t kUnboundedBandwidth = std::uint64_t{1} << 40;
constexpr std::chrono::milliseconds kWriteGlance{1};

// Both ends close on exec and do not block.
Result<std::pair<UniqueFd, UniqueFd>> stream_pair() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0)
    return os_error(errno, "cannot make a socket pair");
  return std::pair(UniqueFd(ends[0]), UniqueFd(ends[1]));
}

Result<protocol::Machine> machine_of(const BoxRecord& record) {
  protocol::Machine machine;
  machine.hostname = record.id.substr(0, 12);
  machine.machine_id = record.id + std::string(32 - record.id.size(), '0');
  machine.entropy.resize(kEntropy);
  if (::getrandom(machine.entropy.data(), kEntropy, 0) != static_cast<ssize_t>(kEntropy))
    return os_error(errno, "cannot get random bytes");
  machine.root_serial = disk_serial(0);
  if (record.spec.host) machine.file_system = protocol::FileSystem::kErofs;
  machine.root_readonly = record.spec.disks[0].mode == DiskMode::kReadonly;
  machine.layer_bytes = layer_bytes(record);
  machine.processes = record.spec.processes.value;
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  machine.realtime_ns = std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
  return machine;
}

Status allow(QmpDialogue& qmp, std::initializer_list<const char*> capabilities) {
  json list = json::array();
  for (const char* name : capabilities) list.push_back({{"capability", name}, {"state", true}});
  TRY(qmp.execute("migrate-set-capabilities", {{"capabilities", list}}));
  return ok_status();
}

Status take_up(QmpDialogue& qmp, const UniqueFd& stream) {
  const UniqueFd fresh = TRY(from_the_beginning(stream));
  TRY(qmp.execute("getfd", {{"fdname", "state"}}, fresh.get()));
  TRY(qmp.execute("migrate-incoming", {{"uri", "fd:state"}}));
  return qmp.await_migration();
}

}  // namespace

// ---------- QEMU ----------
QemuPlan QemuBoot::plan_of(const std::vector<OpenDisk>& disks, Passed& passed) const {
  QemuPlan plan = machine_plan(record_, disks, passed);
  plan.time_stamp_khz = time_stamp_khz();
  return plan;
}

Status QemuBoot::start_qemu(int kernel, int initrd, const std::vector<OpenDisk>& disks) {
  Passed passed;
  QemuPlan plan = plan_of(disks, passed);
  plan.kernel = passed.add(kernel);
  plan.initrd = passed.add(initrd);
  return spawn_qemu(kQemuChannel, plan, passed);
}

Result<Template> QemuBoot::make_template(const MemoryImage& image, const std::vector<OpenDisk>& disks) {
  const std::uint64_t size = record_.spec.memory_bytes.value;
  Template made{.memory = TRY(blank_memory(size)), .devices = TRY(blank_memory(0))};
  Passed passed;
  QemuPlan plan = plan_of({}, passed);
  for (const OpenDisk& disk : disks) plan.disks.push_back({.writable = disk.writable, .layers = {}, .size = disk.size});
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
    TRY(write_state(qmp, made.devices));
    TRY(qmp.execute("quit"));
  }
  TRY(await_exit());
  TRY(seal(made.memory, size));
  TRY(seal(made.devices, 0));
  return made;
}

Status QemuBoot::go_on_from(const Template& from, const std::vector<OpenDisk>& disks) {
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

Status QemuBoot::spawn_qemu(std::uint32_t channel, QemuPlan& plan, Passed& passed) {
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
  runs_ = channel;
  const protocol::Message answer = TRY(walls.next());
  if (answer.header.type == Type::kSpawned) return ok_status();
  runs_.reset();
  if (answer.header.type != Type::kSpawnFailed) return Error(ErrorCode::kInternal, "QEMU's spawn was answered oddly");
  const protocol::SpawnFailed failed = TRY(protocol::decode_spawn_failed(answer.payload));
  Error error = os_error(static_cast<int>(failed.os_error), "cannot start QEMU", kQemuProgram);
  error.code = ErrorCode::kBoxStart;
  return error;
}

// Of a QEMU that was told to.
Status QemuBoot::await_exit() {
  Conversation walls(walls_.session, "the namespaces around QEMU", cancel_, deadline_);
  while (TRY(walls.next()).header.type != Type::kExited) {
  }
  forget_qemu();
  return ok_status();
}

Status QemuBoot::take_back(Deadline deadline) {
  if (!runs_) return ok_status();
  Conversation walls(walls_.session, "the namespaces around QEMU", cancel_, deadline);
  const auto kill = protocol::encode(protocol::Kill{.signal = SIGKILL});
  TRY(walls.send({.type = Type::kKill, .channel = *runs_, .request = 1}, kill));
  // It may have ended by itself meanwhile, or may never have come to be: that and the answer come in any order.
  for (bool exited = false, answered = false; !exited || !answered;) {
    const Type said = TRY(walls.next()).header.type;
    exited |= said == Type::kExited || said == Type::kSpawnFailed;
    answered |= said == Type::kKilled;
  }
  forget_qemu();
  return ok_status();
}

void QemuBoot::forget_qemu() {
  runs_.reset();
  parts_.reset();
  agent_.reset();
}

// ---------- QMP ----------
QmpDialogue QemuBoot::dialogue(Deadline deadline) {
  return {parts_->qmp.get(), walls_.session.get(), [this] { return hear_walls(); }, cancel_, deadline};
}

// Whole when this returns.
Status QemuBoot::write_state(QmpDialogue& qmp, const UniqueFd& state) {
  TRY(qmp.execute("getfd", {{"fdname", "written"}}, state.get()));
  TRY(qmp.execute("migrate", {{"uri", "fd:written"}}));
  return qmp.await_migration();
}

Result<Status> QemuBoot::save(const UniqueFd& state, const std::function<Status()>& meanwhile, Deadline deadline) {
  Conversation guest = this->guest();
  TRY(guest.send({.type = Type::kFreeze, .request = 1}, protocol::encode(protocol::Freeze{})));
  if (TRY(guest.next()).header.type != Type::kFrozen)
    return Error(ErrorCode::kBoxStart, "the guest's agent answered oddly");
  QmpDialogue qmp = dialogue(deadline);
  TRY(qmp.greet());
  TRY(allow(qmp, {"events"}));
  TRY(qmp.execute("migrate-set-parameters", {{"max-bandwidth", kUnboundedBandwidth}}));
  TRY(qmp.execute("stop"));
  Status saved = write_state(qmp, state);
  // It says that it has written all before it has let go of the disks.
  while (saved.ok() && text_at(TRY(qmp.execute("query-status")), "status") != "postmigrate")
    std::this_thread::sleep_for(kWriteGlance);
  if (saved.ok()) saved = meanwhile();
  TRY(cancel_.check());
  TRY(qmp.execute("cont"));
  // Greeted as a copy would be: what it draws at random from here on is not in what was written.
  TRY(meet_guest());
  return saved;
}

// ---------- the guest's agent ----------
Conversation QemuBoot::guest() {
  Conversation guest(agent_, "the guest's agent", cancel_, deadline_);
  guest.meanwhile(walls_.session.get(), [this] { return hear_walls(); });
  for (Console* console : {&parts_->console, &parts_->messages}) {
    guest.meanwhile(console->get(), [console] {
      console->read();
      return ok_status();
    });
  }
  return guest;
}

Status QemuBoot::meet_guest() {
  Conversation guest = this->guest();
  TRY(greet_agent(guest));
  phase_ = "boot";
  TRY(hear_greeting(guest));
  phase_ = "agent";
  const protocol::Machine machine = TRY(machine_of(record_));
  TRY(guest.send({.type = Type::kMachine, .request = 1}, protocol::encode(machine)));
  const protocol::Message answer = TRY(guest.next());
  if (answer.header.type == Type::kMachineReady) {
    own_identity_ = TRY(protocol::decode_machine_ready(answer.payload)).own_identity;
    return ok_status();
  }
  if (answer.header.type != Type::kMachineFailed)
    return Error(ErrorCode::kBoxStart, "the guest's agent answered oddly");
  const protocol::MachineFailed failed = TRY(protocol::decode_machine_failed(answer.payload));
  Error error = os_error(static_cast<int>(failed.os_error), "the guest cannot " + failed.step);
  error.code = ErrorCode::kBoxStart;
  return error;
}

// QEMU's end, or that of the walls, is the only thing that is said there.
Status QemuBoot::hear_walls() {
  std::array<std::byte, protocol::kMaxPayload> buffer{};
  const auto frame = walls_.session.receive(buffer);
  if (!frame.ok() && frame.error().os_error == EAGAIN) return ok_status();
  runs_.reset();
  return Error(ErrorCode::kBoxStart, "the box did not start: QEMU ended");
}

// ---------- its end ----------
Error QemuBoot::explain(Error why) {
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

void QemuBoot::finish(LaunchedBox& box) {
  parts_->walls = std::exchange(box.session, std::move(agent_));
  box.machine = std::make_unique<Machine>(std::move(*parts_));
}

}  // namespace sluicebox::box
