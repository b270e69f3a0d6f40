#include "agent/session.h"

#include <sys/epoll.h>

#include <array>
#include <cerrno>
#include <string>
#include <utility>

#include "agent/console.h"
#include "agent/file_systems.h"
#include "agent/guest.h"
#include "agent/machine_identity.h"
#include "protocol/messages.h"

namespace sluicebox::agent {

namespace {

using protocol::Message;
using protocol::Type;

// So that a host that floods one session does not hold up the rest.
constexpr int kFramesPerTurn = 32;

}  // namespace

Session::Session(Shared& shared, protocol::FrameLink link, bool leash)
    : shared_(shared),
      link_(std::move(link)),
      leash_(leash),
      assembler_(protocol::kMaxMessage),
      outbox_(link_, [this] { watch_.wait_for(EPOLLIN | EPOLLOUT); }, [this] { close(); }) {
  watch_ = shared_.loop.watch(link_.get(), EPOLLIN, [this](std::uint32_t events) { ready(events); });
  if (!watch_.active()) close();
  outbox_.send(Type::kHello, 0, 0, encode(protocol::Hello{.version = protocol::kVersion, .leash = false}));
}

void Session::sweep() {
  std::erase_if(executions_, [](const auto& entry) { return entry.second->over(); });
}

void Session::ready(std::uint32_t events) {
  if ((events & EPOLLOUT) != 0) room();
  if (!closed_ && (events & ~static_cast<std::uint32_t>(EPOLLOUT)) != 0) receive();
}

void Session::receive() {
  std::array<std::byte, protocol::kMaxPayload> payload;
  for (int frames = 0; frames < kFramesPerTurn && !closed_; ++frames) {
    auto received = link_.receive(payload);
    if (!received.ok()) {
      if (received.error().os_error != EAGAIN) close();
      return;
    }
    if (!fragment(*received, Bytes(payload).first(received->length))) close();
  }
  // The descriptor will not tell of these.
  if (!closed_ && link_.buffered()) {
    again_ = shared_.loop.at(monotonic_now(), [this] {
      again_.reset();
      receive();
    });
  }
}

void Session::room() {
  outbox_.flush();
  if (closed_ || outbox_.wants_room()) return;
  watch_.wait_for(EPOLLIN);
  if (outbox_.waiting()) return;
  // Each in its turn, beginning after the last that had one: there may be room for a few only.
  auto next = executions_.upper_bound(last_resumed_);
  for (std::size_t left = executions_.size(); left > 0 && !outbox_.waiting(); --left, ++next) {
    if (next == executions_.end()) next = executions_.begin();
    last_resumed_ = next->first;
    next->second->resume();
  }
}

// The executions die with the session, which its owner lets go at the end of the turn: one of their callbacks may be
// what led here.
void Session::close() {
  if (std::exchange(closed_, true)) return;
  watch_.reset();
  again_.reset();
  outbox_.close();
  for (auto& [channel, execution] : executions_) execution->end(false);
}

bool Session::fragment(protocol::Received& received, Bytes payload) {
  if (!received.descriptors.empty()) {
    // They come with the first frame of a spawn.
    if (received.header.type != Type::kSpawn || !descriptors_.empty()) return false;
    descriptors_ = std::move(received.descriptors);
  }
  auto joined = assembler_.add(received.header, payload);
  if (!joined.ok()) return false;
  if (!*joined) return true;
  const bool good = message(**joined);
  descriptors_.clear();
  return good;
}

bool Session::message(const Message& message) {
  if (!greeted_) return greeting(message);
  if (frozen_ && message.header.type != Type::kThaw) return greeted_anew(message);
  switch (message.header.type) {
    case Type::kPing:
      outbox_.send(Type::kPong, message.header.channel, message.header.request);
      return message.payload.empty();
    case Type::kMachine:
      return shared_.guest && machine(message);
    case Type::kFreeze:
      return shared_.guest && freeze(message);
    case Type::kThaw:
      return shared_.guest && thaw(message);
    case Type::kShutdown:
      return shared_.guest && shut_down(message);
    case Type::kPart:
      return part(message);
    case Type::kSpawn:
      return spawn(message);
    case Type::kKill:
      return kill(message);
    case Type::kResize:
      return resize(message);
    case Type::kInput:
      return input(message);
    case Type::kInputEnd:
      return input_end(message);
    case Type::kDiscard:
      return discard(message);
    case Type::kCredit:
      return credit(message);
    default:
      return false;
  }
}

bool Session::greeting(const Message& message) {
  if (message.header.type != Type::kHello) return false;
  const auto hello = protocol::decode_hello(message.payload);
  greeted_ = hello.ok() && hello.value().version == protocol::kVersion;
  return greeted_;
}

bool Session::machine(const Message& message) {
  const auto machine = protocol::decode_machine(message.payload);
  if (!machine.ok() || message.header.channel != 0 || std::exchange(told_machine_, true)) return false;
  const Status made = shared_.standing ? become_machine(machine.value()) : make_machine(machine.value());
  shared_.standing = made.ok();
  if (made.ok()) {
    shared_.launcher.renew_null();
    const bool own_identity = check_identity(machine.value()).ok();
    outbox_.send(Type::kMachineReady, 0, message.header.request,
                 encode(protocol::MachineReady{.own_identity = own_identity}));
    return true;
  }
  const auto os_error = static_cast<std::uint32_t>(made.error().os_error);
  outbox_.send(Type::kMachineFailed, 0, message.header.request,
               encode(protocol::MachineFailed{.step = made.error().message, .os_error = os_error}));
  tell("cannot " + made.error().message + " (errno " + std::to_string(os_error) + ")");
  return true;
}

// What was said before has left when the answer has; nothing follows it.
bool Session::freeze(const Message& message) {
  const auto freeze = protocol::decode_freeze(message.payload);
  if (!freeze.ok() || message.header.channel != 0) return false;
  const int failed = freeze.value().file_systems ? freeze_file_systems() : 0;
  const auto answer = encode(protocol::Frozen{.os_error = static_cast<std::uint32_t>(failed)});
  outbox_.send(Type::kFrozen, 0, message.header.request, answer);
  frozen_ = failed == 0;
  if (frozen_) outbox_.hold();
  return true;
}

bool Session::thaw(const Message& message) {
  if (!message.payload.empty()) return false;
  // The host gave up before the answer came, or that was a refusal.
  if (!std::exchange(frozen_, false)) return true;
  thaw_file_systems();
  outbox_.release();
  room();
  return true;
}

// This is a copy of the machine that was frozen, or that machine as it was: whose executions these are is not there.
bool Session::greeted_anew(const Message& message) {
  if (message.header.type != Type::kHello || !greeting(message)) return false;
  thaw_file_systems();
  frozen_ = false;
  told_machine_ = false;
  executions_.clear();
  outbox_.forget();
  outbox_.send(Type::kHello, 0, 0, encode(protocol::Hello{.version = protocol::kVersion, .leash = false}));
  return true;
}

bool Session::shut_down(const Message& message) {
  const auto stop = protocol::decode_stop(message.payload);
  if (!stop.ok() || message.header.channel != 0) return false;
  shared_.shut_down(stop.value().grace_ms);
  return true;
}

// The next host finds the session as the first one did.
bool Session::part(const Message& message) {
  if (!message.payload.empty() || message.header.channel != 0) return false;
  executions_.clear();
  outbox_.forget();
  outbox_.send(Type::kParted, 0, message.header.request);
  return true;
}

bool Session::spawn(const Message& message) {
  const auto [channel, request] = std::pair(message.header.channel, message.header.request);
  auto spawn = protocol::decode_spawn(message.payload);
  // One that is over is forgotten at the end of the turn only, and its channel may be asked for before.
  std::erase_if(executions_, [channel](const auto& entry) { return entry.first == channel && entry.second->over(); });
  if (!spawn.ok() || channel == 0 || executions_.contains(channel)) return false;
  if (descriptors_.size() != passed_count(*spawn)) return false;
  if (shared_.ending || !shared_.standing) {
    outbox_.send(Type::kSpawnFailed, channel, request,
                 encode(protocol::SpawnFailed{protocol::SpawnStep::kProcess, ESHUTDOWN}));
    return true;
  }
  auto execution = std::make_unique<Execution>(shared_.loop, shared_.children, outbox_, channel);
  if (!execution->start(shared_.launcher, std::move(*spawn), std::exchange(descriptors_, {}), request)) return true;
  executions_.emplace(channel, std::move(execution));
  return true;
}

bool Session::kill(const Message& message) {
  const auto kill = protocol::decode_kill(message.payload);
  if (!kill.ok()) return false;
  Execution* target = execution(message.header.channel);
  const protocol::Killed killed =
      target != nullptr ? target->kill(kill.value()) : protocol::Killed{.delivered = false, .os_error = ESRCH};
  outbox_.send(Type::kKilled, message.header.channel, message.header.request, encode(killed));
  return true;
}

bool Session::resize(const Message& message) {
  const auto size = protocol::decode_resize(message.payload);
  if (!size.ok()) return false;
  const Execution* target = execution(message.header.channel);
  const protocol::Resized resized = target != nullptr ? target->resize(size.value()) : protocol::Resized{ESRCH};
  outbox_.send(Type::kResized, message.header.channel, message.header.request, encode(resized));
  return true;
}

// For an execution that is over, or a stream that is not framed, these four mean nothing: the host may not know yet.
bool Session::input(const Message& message) {
  const auto data = protocol::decode_data(message.payload);
  if (!data.ok() || data.value().stream != protocol::Stream::kStdin) return false;
  Execution* target = execution(message.header.channel);
  if (target == nullptr || target->input() == nullptr) return true;
  return target->input()->accept(data.value().bytes);
}

bool Session::input_end(const Message& message) {
  Execution* target = execution(message.header.channel);
  if (target != nullptr && target->input() != nullptr) target->input()->end();
  return message.payload.empty();
}

bool Session::discard(const Message& message) {
  const auto of = protocol::decode_of_stream(message.payload);
  if (!of.ok() || of.value().stream == protocol::Stream::kStdin) return false;
  Execution* target = execution(message.header.channel);
  OutputStream* output = target != nullptr ? target->output(of.value().stream) : nullptr;
  if (output != nullptr) output->discard();
  return true;
}

bool Session::credit(const Message& message) {
  const auto credit = protocol::decode_credit(message.payload);
  if (!credit.ok() || credit.value().stream == protocol::Stream::kStdin) return false;
  Execution* target = execution(message.header.channel);
  OutputStream* output = target != nullptr ? target->output(credit.value().stream) : nullptr;
  if (output != nullptr) output->grant(credit.value().bytes);
  return true;
}

Execution* Session::execution(std::uint32_t channel) const {
  const auto found = executions_.find(channel);
  return found == executions_.end() ? nullptr : found->second.get();
}

}  // namespace sluicebox::agent
