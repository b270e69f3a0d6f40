#include "box/namespace_engine.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "box/keeper_process.h"
#include "box/sealed_program.h"
#include "protocol/assembler.h"
#include "protocol/messages.h"
#include "protocol/packet_socket.h"

namespace sluicebox::box {

namespace {

using protocol::Type;
using Deadline = std::chrono::steady_clock::time_point;

constexpr std::size_t kMaxMessage = std::size_t{256} * 1024;
// How long a wait goes on before it looks whether it is still wanted.
constexpr std::chrono::milliseconds kSlice{50};
// A keeper that is told to stop by our hang-up has this long to clean up.
constexpr std::chrono::seconds kCleanUp{5};
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

Error out_of_time(const char* whom) {
  return {ErrorCode::kBoxStart, std::string("the box did not start in time: no answer from its ") + whom};
}

// Whole messages from a socket, under a deadline.
class Conversation {
 public:
  Conversation(int socket, const CancelToken& cancel, Deadline deadline)
      : socket_(socket), cancel_(cancel), deadline_(deadline) {}

  Result<protocol::Message> next(const char* whom) {
    while (true) {
      TRY(cancel_.check());
      const auto left = deadline_ - std::chrono::steady_clock::now();
      if (left <= std::chrono::nanoseconds::zero()) return out_of_time(whom);
      const auto slice = std::min(std::chrono::ceil<std::chrono::milliseconds>(left), kSlice);
      pollfd ready{socket_, POLLIN, 0};
      const int count = ::poll(&ready, 1, static_cast<int>(slice.count()));
      if (count < 0 && errno != EINTR) return os_error(errno, "cannot wait for a box to start");
      if (count <= 0) continue;
      const auto frame = protocol::receive_frame(socket_, buffer_);
      if (!frame.ok() && frame.error().code == ErrorCode::kClosed) {
        return Error(ErrorCode::kBoxStart, std::string("the box did not start: its ") + whom + " ended");
      }
      if (!frame.ok()) return Error(frame.error());
      const auto message = TRY(assembler_.add(frame.value().header, Bytes(buffer_).first(frame.value().length)));
      if (message) return *message;
    }
  }

 private:
  const int socket_;
  const CancelToken& cancel_;
  const Deadline deadline_;
  protocol::Assembler assembler_{kMaxMessage};
  std::array<std::byte, protocol::kMaxPayload> buffer_{};
};

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

Result<protocol::Launched> hear_keeper(int control, const CancelToken& cancel, Deadline deadline) {
  Conversation keeper(control, cancel, deadline);
  const protocol::Message answer = TRY(keeper.next("keeper"));
  if (answer.header.type == Type::kLaunchFailed)
    return start_error(TRY(protocol::decode_launch_failed(answer.payload)));
  if (answer.header.type != Type::kLaunched) return Error(ErrorCode::kInternal, "the keeper answered out of turn");
  return protocol::decode_launched(answer.payload);
}

Status greet_agent(int session) {
  const auto hello = protocol::encode(protocol::Hello{.version = protocol::kVersion, .leash = false});
  return protocol::send_message(session, {.type = Type::kHello}, hello);
}

Status hear_agent(int session, const CancelToken& cancel, Deadline deadline) {
  Conversation agent(session, cancel, deadline);
  const protocol::Message answer = TRY(agent.next("agent"));
  if (answer.header.type != Type::kHello) return Error(ErrorCode::kBoxStart, "the agent did not greet");
  const protocol::Hello theirs = TRY(protocol::decode_hello(answer.payload));
  if (theirs.version == protocol::kVersion) return ok_status();
  return Error(ErrorCode::kBoxStart, "the agent speaks version " + std::to_string(theirs.version) +
                                         " of the protocol, this release " + std::to_string(protocol::kVersion))
      .advise("Rebuild or reinstall the package: its programs are of two releases.");
}

// The agent is heard first: its greeting is the last thing to come, and its end comes with whatever the keeper has to
// say of a failure. So one wait does for both.
Result<protocol::Launched> hear_both(int control, int session, const CancelToken& cancel, Deadline deadline) {
  Status greeted = hear_agent(session, cancel, deadline);
  if (!greeted.ok() && greeted.error().code != ErrorCode::kBoxStart) return std::move(greeted).error();
  auto launched = hear_keeper(control, cancel, deadline);
  if (greeted.ok() || !launched.ok()) return launched;
  return std::move(greeted).error();
}

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

}  // namespace

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
Result<LaunchedBox> NamespaceEngine::launch(const BoxRecord& record, Home::Held held, const CancelToken& cancel,
                                            Deadline deadline) {
  TRY(cancel.check());
  bool killed = false;
  if (auto spare = take_spare()) {
    auto launched = order(record, held, *std::move(spare), cancel, deadline, killed);
    // It may have been killed while it waited: that is no failure of this box.
    if (launched.ok() || !killed) return launched;
  }
  return order(record, held, TRY(start_keeper(programs_ + kKeeper, record.id)), cancel, deadline, killed);
}

Result<LaunchedBox> NamespaceEngine::order(const BoxRecord& record, const Home::Held& held, KeeperProcess keeper,
                                           const CancelToken& cancel, Deadline deadline, bool& killed) {
  const UniqueFd program = TRY(agent());
  auto [session, theirs] = TRY(protocol::packet_pair());
  std::vector<int> passed = {theirs.get(), program.get(), held.directory.get(), held.lock.get()};
  UniqueFd root;
  if (record.spec.directory) {
    root = UniqueFd(::open(record.spec.directory->c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!root.valid()) {
      Error error = os_error(errno, "cannot open the root file system's directory", *record.spec.directory);
      error.code = ErrorCode::kBoxStart;
      take_back(std::move(keeper));
      return error;
    }
    passed.push_back(root.get());
  }
  Status sent = protocol::send_message(keeper.control.get(), {.type = Type::kLaunch},
                                       protocol::encode(launch_message(record)), passed);
  // Ours is closed before the agent is waited for: else its death would not be seen.
  theirs.reset();
  // Said before anybody listens: the agent finds it. One that never comes to be hangs up, which is seen below.
  if (sent.ok()) [[maybe_unused]]
    const Status greeted = greet_agent(session.get());
  Result<protocol::Launched> launched = sent.ok() ? hear_both(keeper.control.get(), session.get(), cancel, deadline)
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
                     .session = protocol::FrameLink(std::move(session), protocol::FrameLink::Kind::kPackets),
                     .first_uid = launched->first_uid,
                     .warnings = std::move(launched->warnings)};
}

}  // namespace sluicebox::box
