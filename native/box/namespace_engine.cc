#include "box/namespace_engine.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cerrno>

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

Result<protocol::Launched> wait_for_keeper(int control, const CancelToken& cancel, Deadline deadline) {
  Conversation keeper(control, cancel, deadline);
  const protocol::Message answer = TRY(keeper.next("keeper"));
  if (answer.header.type == Type::kLaunchFailed)
    return start_error(TRY(protocol::decode_launch_failed(answer.payload)));
  if (answer.header.type != Type::kLaunched) return Error(ErrorCode::kInternal, "the keeper answered out of turn");
  return protocol::decode_launched(answer.payload);
}

Status greet_agent(int session, const CancelToken& cancel, Deadline deadline) {
  const auto hello = protocol::encode(protocol::Hello{.version = protocol::kVersion, .leash = false});
  TRY(protocol::send_message(session, {.type = Type::kHello}, hello));
  Conversation agent(session, cancel, deadline);
  const protocol::Message answer = TRY(agent.next("agent"));
  if (answer.header.type != Type::kHello) return Error(ErrorCode::kBoxStart, "the agent did not greet");
  const protocol::Hello theirs = TRY(protocol::decode_hello(answer.payload));
  if (theirs.version == protocol::kVersion) return ok_status();
  return Error(ErrorCode::kBoxStart, "the agent speaks version " + std::to_string(theirs.version) +
                                         " of the protocol, this release " + std::to_string(protocol::kVersion))
      .advise("Rebuild or reinstall the package: its programs are of two releases.");
}

// Hangs up and waits until the keeper has taken everything away.
void take_back(KeeperProcess keeper) {
  keeper.control.reset();
  pollfd ended{keeper.process.get(), POLLIN, 0};
  const auto wait = std::chrono::duration_cast<std::chrono::milliseconds>(kCleanUp);
  if (::poll(&ended, 1, static_cast<int>(wait.count())) > 0) {
    ::waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(keeper.process.get()), nullptr, WEXITED | __WALL);
  }
}

}  // namespace

Result<UniqueFd> NamespaceEngine::agent() {
  MutexLock lock(mutex_);
  if (!agent_.valid()) agent_ = TRY(seal_program(programs_ + "/sluicebox-agent"));
  UniqueFd copy(::fcntl(agent_.get(), F_DUPFD_CLOEXEC, 0));
  if (!copy.valid()) return os_error(errno, "cannot double a descriptor");
  return copy;
}

Result<LaunchedBox> NamespaceEngine::launch(const BoxRecord& record, Home::Held held, const CancelToken& cancel,
                                            Deadline deadline) {
  TRY(cancel.check());
  const UniqueFd program = TRY(agent());
  auto [session, theirs] = TRY(protocol::packet_pair());
  std::vector<int> passed = {theirs.get(), program.get(), held.directory.get(), held.lock.get()};
  UniqueFd root;
  if (record.spec.directory) {
    root = UniqueFd(::open(record.spec.directory->c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!root.valid()) {
      Error error = os_error(errno, "cannot open the root file system's directory", *record.spec.directory);
      error.code = ErrorCode::kBoxStart;
      return error;
    }
    passed.push_back(root.get());
  }
  KeeperProcess keeper = TRY(start_keeper(programs_ + "/sluicebox-keeper", record.id));
  Status sent = protocol::send_message(keeper.control.get(), {.type = Type::kLaunch},
                                       protocol::encode(launch_message(record)), passed);
  // Ours are closed before the agent is waited for: else its death would not be seen.
  theirs.reset();
  held.lock.reset();
  Result<protocol::Launched> launched =
      sent.ok() ? wait_for_keeper(keeper.control.get(), cancel, deadline) : Result<protocol::Launched>(sent.error());
  Status greeted = launched.ok() ? greet_agent(session.get(), cancel, deadline) : Status(launched.error());
  if (!greeted.ok()) {
    session.reset();
    take_back(std::move(keeper));
    Error why = std::move(greeted).error();
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
