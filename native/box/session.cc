#include "box/session.h"

#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>

namespace sluicebox::box {

namespace {

// An agent's messages are short: answers and single frames of output.
constexpr std::size_t kMaxMessage = std::size_t{64} * 1024;
// An agent that says nothing for so long is asked; one that does not answer for as long again is lost.
constexpr std::chrono::seconds kSilence{5};
// For what the guest has not written to its disks yet.
constexpr std::chrono::seconds kFreezePatience{20};
// And for its agent to come back from there.
constexpr std::chrono::minutes kSlowDisks{2};
// Frames of one session before the others have their turn.
constexpr int kFramesPerTurn = 32;
// Of pings, to tell the last from those that only ask whether the agent lives.
constexpr std::uint32_t kHealthRequest = 1;
constexpr std::uint32_t kLastRequest = 2;

}  // namespace

Session::Session(Reactor& reactor, protocol::FrameLink link, Lost lost)
    : reactor_(reactor), link_(std::move(link)), lost_(std::move(lost)), assembler_(kMaxMessage) {}

Session::~Session() {
  *alive_ = false;
  if (health_) reactor_.cancel(*health_);
  if (patience_) reactor_.cancel(*patience_);
  if (link_.valid()) reactor_.unwatch(link_.get());
}

Status Session::start() {
  TRY(reactor_.watch(link_.get(), EPOLLIN, this));
  watch_health();
  return ok_status();
}

// ---------- out ----------
void Session::send(protocol::Type type, std::uint32_t channel, std::uint32_t request, Bytes payload,
                   std::vector<UniqueFd> passed) {
  if (!link_.valid()) return;
  do {
    const std::size_t take = std::min(payload.size(), protocol::kMaxPayload);
    Outgoing frame;
    frame.header = {.type = type, .more = take < payload.size(), .channel = channel, .request = request};
    frame.payload.assign(payload.begin(), payload.begin() + static_cast<std::ptrdiff_t>(take));
    frame.passed = std::move(passed);
    passed.clear();
    outgoing_.push_back(std::move(frame));
    payload = payload.subspan(take);
  } while (!payload.empty());
  if (!writable_watched_) flush();
}

void Session::send_data(std::uint32_t channel, protocol::Stream stream, Bytes bytes) {
  std::vector<std::byte> payload;
  payload.reserve(bytes.size() + 1);
  payload.push_back(static_cast<std::byte>(stream));
  payload.insert(payload.end(), bytes.begin(), bytes.end());
  send(protocol::Type::kInput, channel, 0, payload);
}

// False when the peer is gone; its hang-up is then about to be read.
bool Session::flush() {
  while (held_ ? before_hold_ > 0 : !outgoing_.empty()) {
    const Outgoing& frame = outgoing_.front();
    std::vector<int> passed;
    passed.reserve(frame.passed.size());
    for (const UniqueFd& fd : frame.passed) passed.push_back(fd.get());
    const Status sent = link_.send(frame.header, frame.payload, passed);
    if (!sent.ok()) {
      const bool full = sent.error().os_error == EAGAIN;
      if (full && !writable_watched_) reactor_.change(link_.get(), EPOLLIN | EPOLLOUT);
      writable_watched_ = full;
      if (!full) outgoing_.clear(), before_hold_ = 0;
      return full;
    }
    outgoing_.pop_front();
    if (held_) --before_hold_;
  }
  const Status flushed = link_.flush();
  const bool full = !flushed.ok() && flushed.error().os_error == EAGAIN;
  if (full != writable_watched_) reactor_.change(link_.get(), full ? EPOLLIN | EPOLLOUT : EPOLLIN);
  writable_watched_ = full;
  return flushed.ok() || full;
}

// ---------- in ----------
std::uint32_t Session::open(std::shared_ptr<Channel> channel) {
  const std::uint32_t number = next_channel_++;
  channels_.emplace(number, std::move(channel));
  return number;
}

void Session::ready(std::uint32_t events) {
  const auto alive = alive_;
  if ((events & EPOLLOUT) != 0) flush();
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) == 0) return;
  Status received = receive_all();
  if (!*alive || received.ok()) return;
  const Error& why = received.error();
  if (why.os_error == EAGAIN) return;
  const bool hung_up = why.code == ErrorCode::kClosed;
  fail(Error(ErrorCode::kBoxLost,
             hung_up ? "the box's agent ended" : "the box's agent is not to be trusted: " + why.message),
       hung_up ? End::kHungUp : End::kBrokeOff);
}

Status Session::receive_all() {
  const auto alive = alive_;
  for (int i = 0; i < kFramesPerTurn; ++i) {
    protocol::Received frame = TRY(link_.receive(buffer_));
    heard_ = Clock::now();
    pinged_ = false;
    for (UniqueFd& fd : frame.descriptors) passed_.push_back(std::move(fd));
    const auto message = TRY(assembler_.add(frame.header, Bytes(buffer_).first(frame.length)));
    if (!message) continue;
    TRY(dispatch(*message));
    if (!*alive || !link_.valid()) return ok_status();
    passed_.clear();
  }
  // The descriptor will not tell of these.
  if (link_.buffered())
    reactor_.post([this, alive] {
      if (*alive) ready(EPOLLIN);
    });
  return ok_status();
}

Status Session::dispatch(const protocol::Message& message) {
  const protocol::Header& header = message.header;
  if (header.channel == 0) {
    const bool answers = header.type == protocol::Type::kPong || header.type == protocol::Type::kParted;
    if (answers && parting_ && header.request == kLastRequest) return parted();
    if (header.type == protocol::Type::kPong || header.type == protocol::Type::kHello) return ok_status();
    if (header.type == protocol::Type::kFrozen) {
      const protocol::Frozen frozen = TRY(protocol::decode_frozen(message.payload));
      const int failed = static_cast<int>(frozen.os_error);
      // An answer that came too late is none to the next question.
      if (header.request != freezes_) return ok_status();
      unanswered_ = false;
      answer_freeze(failed == 0 ? ok_status() : Status(os_error(failed, "the guest cannot hold its file systems")));
      if (!held_) rest(false);
      return ok_status();
    }
    return Error(ErrorCode::kIo, "the agent sent a message that belongs to no execution");
  }
  const auto found = channels_.find(header.channel);
  // What was said before the agent heard that the channel is closed.
  if (found == channels_.end() && header.channel < next_channel_) return ok_status();
  if (found == channels_.end()) return Error(ErrorCode::kIo, "the agent spoke of an execution that was never begun");
  const std::shared_ptr<Channel> channel = found->second;
  std::vector<UniqueFd> passed = std::move(passed_);
  passed_.clear();
  return channel->received(header.type, header.request, message.payload, passed);
}

// ---------- silence ----------
void Session::freeze(bool file_systems, std::function<void(Status)> done) {
  if (!link_.valid()) return done(Error(ErrorCode::kBoxLost, "the box's agent is gone"));
  if (held_) return done(Error(ErrorCode::kInUse, "the box is being looked at already"));
  rest(true);
  frozen_ = std::move(done);
  unanswered_ = true;
  send(protocol::Type::kFreeze, 0, ++freezes_, encode(protocol::Freeze{.file_systems = file_systems}));
  held_ = true;
  before_hold_ = outgoing_.size();
  patience_ = reactor_.at(Clock::now() + kFreezePatience, [this] {
    patience_.reset();
    answer_freeze(Error(ErrorCode::kIo, "the guest's agent does not fall silent: it has too much to write"));
  });
}

void Session::thaw() {
  if (!std::exchange(held_, false) || !link_.valid()) return;
  if (patience_) reactor_.cancel(*patience_);
  patience_.reset();
  // Ahead of what waited for it.
  Outgoing thaw;
  thaw.header = {.type = protocol::Type::kThaw};
  const std::size_t place = std::min(before_hold_, outgoing_.size());
  outgoing_.insert(outgoing_.begin() + static_cast<std::ptrdiff_t>(place), std::move(thaw));
  // An agent that still waits for its disks cannot say that it lives.
  if (!unanswered_)
    rest(false);
  else
    patience_ = reactor_.at(Clock::now() + kSlowDisks, [this] {
      patience_.reset();
      if (std::exchange(unanswered_, false)) rest(false);
    });
  if (!writable_watched_) flush();
}

void Session::answer_freeze(Status done) {
  if (patience_) reactor_.cancel(*patience_);
  patience_.reset();
  if (const auto told = std::exchange(frozen_, nullptr)) told(std::move(done));
}

// ---------- its end ----------
void Session::part(const Error& why, HandedOver done) {
  end_with(std::move(done), protocol::Type::kPart);
  if (parting_) lose_channels(why);
}

void Session::hand_over(HandedOver done) { end_with(std::move(done), protocol::Type::kPing); }

// Its answer is the last that is said.
void Session::end_with(HandedOver done, protocol::Type question) {
  if (!link_.valid()) return done(Error(ErrorCode::kBoxLost, "the box's agent is gone"));
  if (held_ || parting_) return done(Error(ErrorCode::kInUse, "the box is being looked at"));
  parting_ = std::move(done);
  send(question, 0, kLastRequest, {});
}

Status Session::parted() {
  reactor_.unwatch(link_.get());
  if (health_) reactor_.cancel(*health_);
  health_.reset();
  lost_ = nullptr;
  const auto link = std::make_shared<protocol::FrameLink>(std::exchange(link_, {}));
  reactor_.post([done = std::exchange(parting_, nullptr), link] { done(std::move(*link)); });
  return ok_status();
}

void Session::lose_channels(const Error& why) {
  std::unordered_map<std::uint32_t, std::shared_ptr<Channel>> channels;
  channels.swap(channels_);
  for (const auto& [number, channel] : channels) channel->lost(why);
}

void Session::fail(Error why, End end) {
  if (link_.valid()) reactor_.unwatch(link_.get());
  link_.reset();
  if (health_) reactor_.cancel(*health_);
  health_.reset();
  outgoing_.clear();
  before_hold_ = 0;
  answer_freeze(why);
  if (const auto done = std::exchange(parting_, nullptr)) done(Error(why));
  lose_channels(why);
  if (const auto lost = std::exchange(lost_, nullptr)) lost(std::move(why), end);
}

void Session::finish(const Error& why) {
  lost_ = nullptr;
  const auto alive = alive_;
  while (link_.valid() && receive_all().ok()) {
    if (!*alive) return;
  }
  if (*alive) fail(why);
}

// ---------- health ----------
void Session::watch_health() {
  health_ =
      reactor_.at(std::max(heard_ + kSilence, Clock::now() + std::chrono::seconds(1)), [this] { check_health(); });
}

void Session::rest(bool resting) {
  if (health_) reactor_.cancel(*health_);
  health_.reset();
  pinged_ = false;
  heard_ = Clock::now();
  if (!resting && link_.valid()) watch_health();
}

void Session::check_health() {
  health_.reset();
  if (Clock::now() - heard_ < kSilence) return watch_health();
  if (pinged_) return fail(Error(ErrorCode::kBoxLost, "the box's agent does not answer"));
  pinged_ = true;
  send(protocol::Type::kPing, 0, kHealthRequest, {});
  health_ = reactor_.at(Clock::now() + kSilence, [this] { check_health(); });
}

}  // namespace sluicebox::box
