#include "agent/agent.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <utility>

#include "agent/power.h"
#include "protocol/messages.h"
#include "protocol/packet_socket.h"

namespace sluicebox::agent {

namespace {

// After SIGKILL only a process stuck in the kernel, or a host that does not read, is still waited for.
constexpr std::uint64_t kLastWaitMs = 1000;

// Else this is a test's process, among others that are none of its business.
bool first_process() { return ::getpid() == 1; }

}  // namespace

Agent::Agent(std::unique_ptr<Loop> loop, UniqueFd child_signals)
    : loop_(std::move(loop)), child_signals_(std::move(child_signals)) {
  child_watch_ = loop_->watch(child_signals_.get(), EPOLLIN, [this](std::uint32_t) { heard(); });
}

void Agent::serve_keeper(UniqueFd link) {
  link_ = std::move(link);
  link_watch_ = loop_->watch(link_.get(), EPOLLIN, [this](std::uint32_t) { link_ready(); });
  if (!link_watch_.active()) leave(1);
  run();
}

// The host's end of the port is the leash: a port that hangs up ends the machine.
void Agent::serve_host(UniqueFd port) {
  shared_.guest = true;
  shared_.standing = false;
  shared_.shut_down = [this](std::uint64_t grace_ms) { shut_down(grace_ms); };
  sessions_.push_back(std::make_unique<Session>(
      shared_, protocol::FrameLink(std::move(port), protocol::FrameLink::Kind::kStream), true));
  run();
}

void Agent::run() {
  if (!child_watch_.active()) leave(1);
  while (true) {
    loop_->turn();
    sweep();
  }
}

// Signals of several children come as one.
void Agent::heard() {
  signalfd_siginfo signals[16];
  while (::read(child_signals_.get(), signals, sizeof signals) > 0) {
  }
  children_.reap();
}

void Agent::link_ready() {
  std::array<std::byte, protocol::kMaxPayload> payload;
  auto received = protocol::receive_frame(link_.get(), payload);
  if (!received.ok()) {
    if (received.error().os_error == EAGAIN) return;
    leave(1);
  }
  std::vector<UniqueFd> descriptors = std::move(received->descriptors);
  if (!link_message(*received, Bytes(payload).first(received->length), descriptors)) leave(1);
}

bool Agent::link_message(const protocol::Received& received, Bytes payload, std::vector<UniqueFd>& descriptors) {
  if (received.header.more) return false;
  if (received.header.type == protocol::Type::kShutdown) {
    const auto stop = protocol::decode_stop(payload);
    if (stop.ok()) shut_down(stop.value().grace_ms);
    return stop.ok();
  }
  if (received.header.type != protocol::Type::kSession || descriptors.size() != 1) return false;
  const auto hello = protocol::decode_hello(payload);
  if (!hello.ok() || hello.value().version != protocol::kVersion) return false;
  const int socket = descriptors[0].get();
  // Of this end alone: the host's has flags of its own.
  if (::fcntl(socket, F_SETFL, ::fcntl(socket, F_GETFL) | O_NONBLOCK) != 0) return false;
  sessions_.push_back(std::make_unique<Session>(
      shared_, protocol::FrameLink(std::move(descriptors[0]), protocol::FrameLink::Kind::kPackets),
      hello.value().leash));
  return true;
}

// A second request can only make it sooner.
void Agent::shut_down(std::uint64_t grace_ms) {
  const bool first = !std::exchange(shared_.ending, true);
  if (grace_ms == 0) return kill_all(!first);
  if (first) {
    for (auto& session : sessions_) {
      session->each_execution([](Execution& execution) {
        execution.kill({.signal = SIGTERM, .scope = protocol::KillScope::kGroup, .force_after_ms = -1});
      });
    }
    if (first_process()) ::kill(-1, SIGTERM);
  }
  const Nanoseconds moment = deadline_after(grace_ms);
  if (!last_.active() && (!grace_.active() || moment < grace_.at()))
    grace_ = loop_->at(moment, [this] { kill_all(true); });
}

void Agent::kill_all(bool forced) {
  grace_.reset();
  children_.reap();
  for (auto& session : sessions_) {
    session->each_execution([forced](Execution& execution) { execution.end(forced); });
  }
  if (first_process()) ::kill(-1, SIGKILL);
  if (!last_.active()) last_ = loop_->at(deadline_after(kLastWaitMs), [this] { leave(0); });
}

// What a callback could not destroy while it ran.
void Agent::sweep() {
  for (auto& session : sessions_) {
    if (session->closed() && session->leash()) leave(0);
    if (!session->closed()) session->sweep();
  }
  std::erase_if(sessions_, [](const auto& session) { return session->closed(); });
  if (!shared_.ending) return;
  if (first_process() ? Children::any_left() : children_.any_owned()) return;
  for (auto& session : sessions_) {
    if (!session->flushed()) return;
  }
  leave(0);
}

// In a box the end of its first process ends all others. In a virtual machine it would be a panic.
void Agent::leave(int code) {
  for (auto& session : sessions_) {
    session->each_execution([](Execution& execution) { execution.end(false); });
  }
  if (shared_.guest) power_off();
  ::_exit(code);
}

}  // namespace sluicebox::agent
