#include "box/namespace_engine.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <utility>

#include "box/conversation.h"
#include "box/keeper_process.h"
#include "box/sealed_program.h"
#include "protocol/messages.h"
#include "protocol/packet_socket.h"

namespace sluicebox::box {

namespace {

using protocol::Type;
using Deadline = std::chrono::steady_clock::time_point;

// A keeper that is told to stop by our hang-up has this long to clean up.
constexpr std::chrono::seconds kCleanUp{5};
// Of a box that is only tried out.
constexpr std::chrono::seconds kTryOutTime{10};
constexpr std::uint64_t kTryOutStorage = std::uint64_t{1} << 20;
constexpr const char* kKeeper = "/sluicebox-keeper";
// As long as an id, whose place it takes in the list of processes.
constexpr const char* kNoBoxYet = "spare-------------------";

protocol::Limit limit_of(const LimitSpec& spec) { return {.value = spec.value, .asked = spec.asked}; }

protocol::Launch launch_message(const BoxRecord& record) {
  protocol::Launch launch;
  launch.id = record.id;
  launch.hostname = record.id.substr(0, 12);
  launch.root = record.spec.directory ? protocol::Root::kDirectory : protocol::Root::kHost;
  launch.keep = record.spec.keep;
  launch.storage_bytes = record.spec.storage_bytes;
  launch.storage_asked = record.spec.storage_asked;
  launch.memory_bytes = limit_of(record.spec.memory_bytes);
  launch.vcpus = limit_of(record.spec.vcpus);
  launch.processes = limit_of(record.spec.processes);
  launch.first_uid = record.first_uid;
  return launch;
}

Error start_error(const protocol::LaunchFailed& failed) {
  const auto code = static_cast<ErrorCode>(failed.code);
  Error error(code == ErrorCode::kUnsupported || code == ErrorCode::kInUse || code == ErrorCode::kNoSpace
                  ? code
                  : ErrorCode::kBoxStart,
              failed.message);
  error.os_error = static_cast<int>(failed.os_error);
  error.path = failed.path;
  error.hint = failed.hint;
  return error;
}

Result<protocol::Launched> hear_keeper(const UniqueFd& control, const CancelToken& cancel, Deadline deadline) {
  UniqueFd copy(::fcntl(control.get(), F_DUPFD_CLOEXEC, 0));
  if (!copy.valid()) return os_error(errno, "cannot double a descriptor");
  protocol::FrameLink link(std::move(copy), protocol::FrameLink::Kind::kPackets);
  Conversation keeper(link, "its keeper", cancel, deadline);
  const protocol::Message answer = TRY(keeper.next());
  if (answer.header.type == Type::kLaunchFailed)
    return start_error(TRY(protocol::decode_launch_failed(answer.payload)));
  if (answer.header.type != Type::kLaunched) return Error(ErrorCode::kInternal, "the keeper answered out of turn");
  return protocol::decode_launched(answer.payload);
}

// The agent is heard first: its greeting is the last thing to come, and its end comes with whatever the keeper has to
// say of a failure. So one wait does for both.
Result<protocol::Launched> hear_both(const UniqueFd& control, Conversation& agent, const CancelToken& cancel,
                                     Deadline deadline) {
  Status greeted = hear_greeting(agent);
  if (!greeted.ok() && greeted.error().code != ErrorCode::kBoxStart) return std::move(greeted).error();
  auto launched = hear_keeper(control, cancel, deadline);
  if (greeted.ok() || !launched.ok()) return launched;
  return std::move(greeted).error();
}

}  // namespace

// Hangs up and waits until the keeper has taken everything away. True when it was killed.
bool take_back(KeeperProcess keeper) {
  keeper.control.reset();
  pollfd ended{keeper.process.get(), POLLIN, 0};
  const auto wait = std::chrono::duration_cast<std::chrono::milliseconds>(kCleanUp);
  siginfo_t end{};
  if (::poll(&ended, 1, static_cast<int>(wait.count())) > 0) {
    ::waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(keeper.process.get()), &end, WEXITED | __WALL);
  }
  return end.si_code == CLD_KILLED || end.si_code == CLD_DUMPED;
}

Result<UniqueFd> NamespaceEngine::agent() {
  MutexLock lock(mutex_);
  if (!agent_.valid()) agent_ = TRY(seal_program(programs_ + "/sluicebox-agent"));
  UniqueFd copy(::fcntl(agent_.get(), F_DUPFD_CLOEXEC, 0));
  if (!copy.valid()) return os_error(errno, "cannot double a descriptor");
  return copy;
}

// ---------- the spare ----------
void NamespaceEngine::prepare() {
  {
    MutexLock lock(mutex_);
    if (closed_ || preparing_ || spare_) return;
    preparing_ = true;
  }
  auto made = spare_keeper();
  {
    MutexLock lock(mutex_);
    preparing_ = false;
    if (!made.ok()) return;  // the launch that needs one says why
    if (!closed_) {
      spare_ = Spare{std::move(made).value(), std::chrono::steady_clock::now()};
      return;
    }
  }
  take_back(std::move(made).value());
}

Result<KeeperProcess> NamespaceEngine::spare_keeper() {
  const UniqueFd program = TRY(agent());
  KeeperProcess keeper = TRY(start_keeper(programs_ + kKeeper, kNoBoxYet));
  const int passed[] = {program.get()};
  const Status sent = protocol::send_message(keeper.control.get(), {.type = Type::kPrepare}, {}, passed);
  if (sent.ok()) return keeper;
  take_back(std::move(keeper));
  return sent.error();
}

std::optional<KeeperProcess> NamespaceEngine::take_spare() {
  MutexLock lock(mutex_);
  auto taken = std::exchange(spare_, std::nullopt);
  return taken ? std::optional(std::move(taken->keeper)) : std::nullopt;
}

void NamespaceEngine::retire(std::chrono::steady_clock::duration age) {
  {
    MutexLock lock(mutex_);
    if (!spare_ || std::chrono::steady_clock::now() - spare_->since < age) return;
  }
  if (auto keeper = take_spare()) take_back(*std::move(keeper));
}

void NamespaceEngine::close() {
  {
    MutexLock lock(mutex_);
    closed_ = true;
  }
  if (auto keeper = take_spare()) take_back(*std::move(keeper));
}

// ---------- a launch ----------
Result<LaunchedBox> NamespaceEngine::launch(const BoxRecord& record, Home::Held held, const Origin&,
                                            const CancelToken& cancel, Deadline deadline) {
  UniqueFd root;
  if (record.spec.directory) {
    root = UniqueFd(::open(record.spec.directory->c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!root.valid()) {
      Error error = os_error(errno, "cannot open the root file system's directory", *record.spec.directory);
      error.code = ErrorCode::kBoxStart;
      return error;
    }
  }
  return build_walls(launch_message(record), std::move(root), std::move(held), cancel, deadline);
}

Status NamespaceEngine::try_out() {
  std::error_code none;
  const std::filesystem::path temporary = std::filesystem::temp_directory_path(none);
  if (none) return os_error(none.value(), "cannot find the directory for temporary files");
  std::string path = (temporary / "sluicebox-try-XXXXXX").string();
  if (::mkdtemp(path.data()) == nullptr) return os_error(errno, "cannot make a directory", path);
  const auto tried = [&]() -> Status {
    const Home home = TRY(Home::open(path));
    BoxRecord record;
    record.id = TRY(new_box_id());
    record.spec.storage_bytes = kTryOutStorage;
    CancelToken cancel;  // of its own: it is bounded by its time
    auto held = TRY(home.add(record));
    auto launched = TRY(launch(record, std::move(held), {}, cancel, std::chrono::steady_clock::now() + kTryOutTime));
    launched.session.reset();
    take_back({.process = std::move(launched.process), .control = std::move(launched.control)});
    return ok_status();
  }();
  std::error_code ignored;
  std::filesystem::remove_all(path, ignored);
  return tried;
}

Result<LaunchedBox> NamespaceEngine::build_walls(const protocol::Launch& launch, UniqueFd root, Home::Held held,
                                                 const CancelToken& cancel, Deadline deadline) {
  TRY(cancel.check());
  bool killed = false;
  if (auto spare = take_spare()) {
    auto launched = order(launch, root, held, *std::move(spare), cancel, deadline, killed);
    // It may have been killed while it waited: that is no failure of this box.
    if (launched.ok() || !killed) return launched;
  }
  return order(launch, root, held, TRY(start_keeper(programs_ + kKeeper, launch.id)), cancel, deadline, killed);
}

Result<LaunchedBox> NamespaceEngine::order(const protocol::Launch& launch, const UniqueFd& root, const Home::Held& held,
                                           KeeperProcess keeper, const CancelToken& cancel, Deadline deadline,
                                           bool& killed) {
  const UniqueFd program = TRY(agent());
  auto [ours, theirs] = TRY(protocol::packet_pair());
  protocol::FrameLink session(std::move(ours), protocol::FrameLink::Kind::kPackets);
  std::vector<int> passed = {theirs.get(), program.get(), held.directory.get(), held.lock.get()};
  if (root.valid()) passed.push_back(root.get());
  Status sent = protocol::send_message(keeper.control.get(), {.type = Type::kLaunch}, protocol::encode(launch), passed);
  // Ours is closed before the agent is waited for: else its death would not be seen.
  theirs.reset();
  Conversation agent(session, "its agent", cancel, deadline);
  // Said before anybody listens: the agent finds it. One that never comes to be hangs up, which is seen below.
  if (sent.ok()) [[maybe_unused]]
    const Status greeted = greet_agent(agent);
  Result<protocol::Launched> launched = sent.ok() ? hear_both(keeper.control, agent, cancel, deadline)
                                                  : Result<protocol::Launched>(std::move(sent).error());
  if (!launched.ok()) {
    session.reset();
    killed = take_back(std::move(keeper));
    Error why = std::move(launched).error();
    // A socket's word for a peer that is gone; to the caller it would mean the runtime.
    if (why.code == ErrorCode::kClosed) return Error(ErrorCode::kBoxStart, "the box did not start: its keeper ended");
    return why;
  }
  for (const int fd : {session.get(), keeper.control.get()}) ::fcntl(fd, F_SETFL, O_NONBLOCK);
  return LaunchedBox{.process = std::move(keeper.process),
                     .control = std::move(keeper.control),
                     .session = std::move(session),
                     .machine = nullptr,
                     .first_uid = launched->first_uid,
                     .warnings = std::move(launched->warnings)};
}

}  // namespace sluicebox::box
