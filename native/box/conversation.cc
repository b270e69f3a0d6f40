#include "box/conversation.h"

#include <algorithm>
#include <cerrno>

#include "protocol/messages.h"

namespace sluicebox::box {

namespace {

// How long a wait goes on before it looks whether it is still wanted.
constexpr std::chrono::milliseconds kSlice{50};

}  // namespace

Result<protocol::Message> Conversation::next() {
  while (true) {
    if (!link_.buffered()) TRY(wait(POLLIN));
    const auto frame = link_.receive(buffer_);
    if (!frame.ok() && frame.error().code == ErrorCode::kClosed) {
      if (frame.error().os_error == EAGAIN) continue;
      return Error(ErrorCode::kBoxStart, "the box did not start: " + whom_ + " ended");
    }
    if (!frame.ok()) return Error(frame.error());
    const auto message = TRY(assembler_.add(frame.value().header, Bytes(buffer_).first(frame.value().length)));
    if (message) return *message;
  }
}

Status Conversation::send(const protocol::Header& header, Bytes payload, std::span<const int> descriptors) {
  do {
    const std::size_t take = std::min(payload.size(), protocol::kMaxPayload);
    protocol::Header frame = header;
    frame.more = take < payload.size();
    Status sent = link_.send(frame, payload.first(take), descriptors);
    while (!sent.ok() && sent.error().os_error == EAGAIN) {
      TRY(wait(POLLOUT));
      sent = link_.send(frame, payload.first(take), descriptors);
    }
    TRY(std::move(sent));
    descriptors = {};
    payload = payload.subspan(take);
  } while (!payload.empty());
  while (link_.unsent()) {
    Status flushed = link_.flush();
    if (flushed.ok()) break;
    if (flushed.error().os_error != EAGAIN) return flushed;
    TRY(wait(POLLOUT));
  }
  return ok_status();
}

// Until the link is ready for that.
Status Conversation::wait(short events) {
  while (true) {
    TRY(cancel_.check());
    const auto left = deadline_ - std::chrono::steady_clock::now();
    if (left <= std::chrono::nanoseconds::zero())
      return Error(ErrorCode::kBoxStart, "the box did not start in time: no answer from " + whom_);
    const auto slice = std::min(std::chrono::ceil<std::chrono::milliseconds>(left), kSlice);
    std::vector<pollfd> ends{{.fd = link_.get(), .events = events, .revents = 0}};
    for (const Other& other : others_) ends.push_back({.fd = other.fd, .events = POLLIN, .revents = 0});
    const int count = ::poll(ends.data(), ends.size(), static_cast<int>(slice.count()));
    if (count < 0 && errno != EINTR) return os_error(errno, "cannot wait for a box to start");
    if (count <= 0) continue;
    for (std::size_t i = 1; i < ends.size(); ++i) {
      if (ends[i].revents != 0) TRY(others_[i - 1].ready());
    }
    if (ends[0].revents != 0) return ok_status();
  }
}

Status greet_agent(Conversation& agent) {
  const auto hello = protocol::encode(protocol::Hello{.version = protocol::kVersion, .leash = false});
  return agent.send({.type = protocol::Type::kHello}, hello);
}

Status hear_greeting(Conversation& agent) {
  const protocol::Message answer = TRY(agent.next());
  if (answer.header.type != protocol::Type::kHello) return Error(ErrorCode::kBoxStart, "the agent did not greet");
  const protocol::Hello theirs = TRY(protocol::decode_hello(answer.payload));
  if (theirs.version == protocol::kVersion) return ok_status();
  return Error(ErrorCode::kBoxStart, "the agent speaks version " + std::to_string(theirs.version) +
                                         " of the protocol, this release " + std::to_string(protocol::kVersion))
      .advise("Rebuild or reinstall the package: its programs are of two releases.");
}

}  // namespace sluicebox::box
