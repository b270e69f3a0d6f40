#include "box/running_box.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string>
#include <utility>

#include "box/conversation.h"
#include "box/estate.h"
#include "protocol/messages.h"
#include "protocol/packet_socket.h"

namespace sluicebox::box {

namespace {

using protocol::Type;
using Deadline = std::chrono::steady_clock::time_point;

// Where the keeper listens, in the box's directory.
constexpr const char* kDoor = "/keeper.sock";
// Between two looks whether it is still wanted.
constexpr int kGlanceMs = 50;

struct Keeper {
  UniqueFd process;
  UniqueFd control;
};

Result<Keeper> reach_keeper(int directory) {
  Keeper keeper;
  keeper.control = UniqueFd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!keeper.control.valid()) return os_error(errno, "cannot make a socket");
  // By the descriptor: a home's path may be longer than an address.
  const std::string path = "/proc/self/fd/" + std::to_string(directory) + kDoor;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  const int socket = keeper.control.get();
  if (::connect(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    Error error = os_error(errno, "the box is just being started, or ended, by another process");
    error.code = ErrorCode::kInUse;
    return error;
  }
  ucred who{};
  socklen_t size = sizeof who;
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &who, &size) != 0)
    return os_error(errno, "cannot tell who the box's keeper is");
  // It answers below, so it lives, and this is its pid and nobody else's.
  keeper.process = UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, who.pid, 0)));
  if (!keeper.process.valid()) return os_error(errno, "cannot watch the box's keeper");
  return keeper;
}

struct Reply {
  Type type{};
  std::vector<std::byte> payload;
  std::vector<UniqueFd> descriptors;
};

Result<Reply> ask_keeper(int control, Type question, const CancelToken& cancel, Deadline deadline) {
  const auto hello = protocol::encode(protocol::Hello{.version = protocol::kVersion, .leash = false});
  TRY(protocol::send_frame(control, {.type = question}, hello));
  std::array<std::byte, protocol::kMaxPayload> buffer;
  while (true) {
    auto frame = protocol::receive_frame(control, buffer);
    if (frame.ok()) {
      const auto payload = Bytes(buffer).first(frame.value().length);
      return Reply{.type = frame.value().header.type,
                   .payload = {payload.begin(), payload.end()},
                   .descriptors = std::move(frame.value().descriptors)};
    }
    if (frame.error().os_error != EAGAIN) return Error(ErrorCode::kBoxLost, "the box's keeper ended");
    TRY(cancel.check());
    if (std::chrono::steady_clock::now() > deadline)
      return Error(ErrorCode::kBoxLost, "the box's keeper does not answer");
    pollfd ready{control, POLLIN, 0};
    ::poll(&ready, 1, kGlanceMs);
  }
}

Error refusal(const protocol::LaunchFailed& said) {
  Error error(static_cast<ErrorCode>(said.code), said.message);
  error.os_error = static_cast<int>(said.os_error);
  return error;
}

Status greet(protocol::FrameLink& session, const CancelToken& cancel, Deadline deadline) {
  Conversation agent(session, "its agent", cancel, deadline);
  TRY(greet_agent(agent));
  return hear_greeting(agent);
}

}  // namespace

Result<RunningBox> join_box(int directory, const CancelToken& cancel, Deadline deadline) {
  Keeper keeper = TRY(reach_keeper(directory));
  const int control = keeper.control.get();
  Reply reply = TRY(ask_keeper(control, Type::kAdopt, cancel, deadline));
  const bool is_ours = reply.type == Type::kGiven;
  if (!is_ours) reply = TRY(ask_keeper(control, Type::kAttach, cancel, deadline));
  if (reply.type == Type::kRefused) return refusal(TRY(protocol::decode_launch_failed(reply.payload)));
  if (reply.type != Type::kGiven) return Error(ErrorCode::kInternal, "the keeper answered out of turn");
  const protocol::Given given = TRY(protocol::decode_given(reply.payload));
  RunningBox running{.box = {.process = std::move(keeper.process),
                             .control = std::move(keeper.control),
                             .session = {},
                             .machine = nullptr,
                             .first_uid = given.first_uid,
                             .warnings = given.warnings},
                     .is_ours = is_ours,
                     .started_at_ms = static_cast<std::int64_t>(given.started_at_ms)};
  if (is_ours) {
    Estate estate = TRY(inherit(given, std::move(reply.descriptors)));
    running.box.session = std::move(estate.agent);
    if (estate.machine)
      running.box.machine = std::make_unique<Machine>(std::move(*estate.machine), std::move(estate.chains));
    return running;
  }
  if (reply.descriptors.size() != 1) return Error(ErrorCode::kInternal, "the keeper gave no session");
  ::fcntl(reply.descriptors[0].get(), F_SETFL, O_NONBLOCK);
  running.box.session = protocol::FrameLink(std::move(reply.descriptors[0]), protocol::FrameLink::Kind::kPackets);
  TRY(greet(running.box.session, cancel, deadline));
  return running;
}

}  // namespace sluicebox::box
