#include "keeper/watch.h"

#include <poll.h>
#include <sys/socket.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "keeper/answer.h"
#include "keeper/door.h"
#include "keeper/setup.h"

namespace sluicebox::keeper {

namespace {

using protocol::Ended;
using protocol::Type;

// For the agent to kill what is left when the grace is over, and to end itself.
constexpr std::uint64_t kSlackMs = 1000;
constexpr std::uint64_t kLongestGraceMs = std::uint64_t{1} << 40;
constexpr std::size_t kMostOthers = 64;

std::uint64_t now_ms() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1000 + static_cast<std::uint64_t>(now.tv_nsec) / 1000000;
}

// What an owner left for the next one.
struct Estate {
  std::string state;
  std::vector<protocol::Left> uses;
  std::vector<UniqueFd> descriptors;
};

// What one turn waits for, and what to do about each.
class Ears {
 public:
  void add(int fd, short events, std::function<void()> ready) {
    polls_.push_back({fd, events, 0});
    ready_.push_back(std::move(ready));
  }
  // In the order in which they were added, until one says so.
  void listen(int timeout, const bool& enough) {
    if (::poll(polls_.data(), polls_.size(), timeout) <= 0) return;
    for (std::size_t i = 0; i < polls_.size() && !enough; ++i) {
      if (polls_[i].revents != 0) ready_[i]();
    }
  }

 private:
  std::vector<pollfd> polls_;
  std::vector<std::function<void()>> ready_;
};

class Watch {
 public:
  Watch(Box& box, Company& company) : box_(box), company_(company) {}

  Ended run() {
    while (!over_) step();
    const walls::ProcessEnd end = walls::reap(box_.first.handle.get());
    ended_.signaled = end.signaled;
    ended_.code = static_cast<std::uint32_t>(end.code);
    ended_.forced = forced_ || (grace_end_ && now_ms() >= *grace_end_);
    return ended_;
  }

 private:
  // Once PID 1 is killed there is nothing to wait for but its end.
  void step() {
    Ears ears;
    ears.add(box_.first.handle.get(), POLLIN, [this] { over_ = true; });
    if (!killed_) {
      // Of the link only its end counts: what a box writes there is never read.
      if (!link_gone_) ears.add(box_.link.get(), 0, [this] { link_ended(); });
      if (company_.owner.valid()) listen_to(ears, company_.owner);
      for (const UniqueFd& other : company_.others) listen_to(ears, other);
      if (company_.door.valid() && company_.others.size() < kMostOthers)
        ears.add(company_.door.get(), POLLIN, [this] { open_door(); });
      if (estate_) look_after(ears);
    }
    ears.listen(timeout(), over_);
    if (!over_ && !killed_ && deadline_ && now_ms() >= *deadline_) {
      forced_ = true;
      kill();
    }
  }

  int timeout() const {
    if (!deadline_ || killed_) return -1;
    const std::uint64_t now = now_ms();
    return *deadline_ <= now ? 0 : static_cast<int>(std::min<std::uint64_t>(*deadline_ - now, 1U << 30));
  }

  // The end itself is about to follow; an agent that lives on without its link does not for long.
  void link_ended() {
    link_gone_ = true;
    end_by(now_ms() + kSlackMs);
  }

  // ---------- who speaks ----------
  void open_door() {
    if (auto visitor = let_in(company_.door.get())) company_.others.push_back(*std::move(visitor));
  }

  void listen_to(Ears& ears, const UniqueFd& whom) {
    ears.add(whom.get(), POLLIN, [this, fd = whom.get()] { hear_from(fd); });
  }

  void hear_from(int fd) {
    auto word = hear(fd);
    if (!word.ok() && word.error().os_error == EAGAIN) return;
    if (!word.ok() || !answer(fd, word.value())) gone(fd);
  }

  void gone(int fd) {
    if (company_.owner.get() == fd) return kill();
    std::erase_if(company_.others, [fd](const UniqueFd& other) { return other.get() == fd; });
  }

  // False: who said it is not to be listened to any more.
  bool answer(int from, SetupWord& word) {
    const bool owns = company_.owner.get() == from;
    switch (word.type) {
      case Type::kStop:
        return stop(word);
      case Type::kLeave:
        return owns && leave(word);
      case Type::kAdopt:
        return !owns && (speaks_ours(word) ? adopt(from) : refuse(from, other_version()));
      case Type::kAttach:
        return !owns && (speaks_ours(word) ? attach(from) : refuse(from, other_version()));
      default:
        return owns;
    }
  }

  static bool speaks_ours(const SetupWord& word) {
    const auto hello = protocol::decode_hello(word.payload);
    return hello.ok() && hello.value().version == protocol::kVersion;
  }

  static Error other_version() {
    return Error(ErrorCode::kUnsupported, "another version of this library started the box")
        .advise("Use it, and stop it, with the version that started it.");
  }

  static bool refuse(int whom, const Error& why) {
    return say(whom, Type::kRefused, protocol::encode(as_answer(why))).ok();
  }

  protocol::Given facts() const {
    return {.started_at_ms = box_.started_at_ms, .first_uid = box_.ids.first, .warnings = box_.warnings, .state = {}};
  }

  // ---------- what they want ----------
  bool stop(const SetupWord& word) {
    const auto stop = protocol::decode_stop(word.payload);
    if (!stop.ok()) return false;
    ended_.asked = true;
    const std::uint64_t grace = std::min(stop.value().grace_ms, kLongestGraceMs);
    if (grace == 0) {
      forced_ = true;
      kill();
      return true;
    }
    // A later stop may only hasten it.
    const std::uint64_t end = now_ms() + grace;
    if (grace_end_ && *grace_end_ <= end) return true;
    grace_end_ = end;
    end_by(end + kSlackMs);
    if (!say(box_.link.get(), Type::kShutdown, protocol::encode(protocol::Stop{grace})).ok()) kill();
    return true;
  }

  // From here on the owner is one of many, and may go.
  bool leave(SetupWord& word) {
    auto leave = protocol::decode_leave(word.payload);
    if (!leave.ok() || leave.value().descriptors.size() != word.descriptors.size()) return false;
    estate_ = Estate{.state = std::move(leave.value().state),
                     .uses = std::move(leave.value().descriptors),
                     .descriptors = std::move(word.descriptors)};
    (void)say(company_.owner.get(), Type::kLeft);
    company_.others.push_back(std::move(company_.owner));
    return true;
  }

  bool adopt(int from) {
    if (!estate_) return refuse(from, Error(ErrorCode::kInUse, "another process runs this box"));
    protocol::Given given = facts();
    given.state = estate_->state;
    std::vector<int> descriptors;
    descriptors.reserve(estate_->descriptors.size());
    for (const UniqueFd& fd : estate_->descriptors) descriptors.push_back(fd.get());
    if (!say(from, Type::kGiven, protocol::encode(given), descriptors).ok()) return false;
    const auto heir = std::find_if(company_.others.begin(), company_.others.end(),
                                   [from](const UniqueFd& other) { return other.get() == from; });
    company_.owner = std::move(*heir);
    company_.others.erase(heir);
    estate_.reset();
    return true;
  }

  bool attach(int from) {
    if (box_.exclusive) return refuse(from, Error(ErrorCode::kInUse, "one process at a time uses a virtual machine"));
    auto pair = protocol::packet_pair();
    if (!pair.ok()) return refuse(from, pair.error());
    const auto hello = protocol::encode(protocol::Hello{.version = protocol::kVersion, .leash = false});
    const int inside[] = {pair.value().second.get()};
    if (const Status sent = say(box_.link.get(), Type::kSession, hello, inside); !sent.ok())
      return refuse(from, Error(ErrorCode::kBoxLost, "the box's agent takes no session"));
    const int outside[] = {pair.value().first.get()};
    return say(from, Type::kGiven, protocol::encode(facts()), outside).ok();
  }

  // ---------- what was left ----------
  void look_after(Ears& ears) {
    for (std::size_t i = 0; i < estate_->uses.size(); ++i) {
      const int fd = estate_->descriptors[i].get();
      if (estate_->uses[i] == protocol::Left::kLast) ears.add(fd, POLLIN, [this] { kill(); });
      if (estate_->uses[i] == protocol::Left::kDrain) ears.add(fd, POLLIN, [this, i] { drain(i); });
    }
  }

  void drain(std::size_t which) {
    if (!estate_) return;
    std::array<std::byte, 8192> nothing;
    const ssize_t got = ::recv(estate_->descriptors[which].get(), nothing.data(), nothing.size(), MSG_DONTWAIT);
    if (got == 0) estate_->uses[which] = protocol::Left::kHold;
  }

  // ---------- the end ----------
  void end_by(std::uint64_t time) { deadline_ = deadline_ ? std::min(*deadline_, time) : time; }

  void kill() {
    killed_ = true;
    walls::kill_process(box_.first.handle.get());
  }

  Box& box_;
  Company& company_;
  Ended ended_;
  std::optional<Estate> estate_;
  std::optional<std::uint64_t> grace_end_;
  std::optional<std::uint64_t> deadline_;
  bool link_gone_ = false;
  bool forced_ = false;
  bool killed_ = false;
  bool over_ = false;
};

}  // namespace

void Company::tell(Type word, Bytes payload) const {
  if (owner.valid()) (void)say(owner.get(), word, payload);
  for (const UniqueFd& other : others) (void)say(other.get(), word, payload);
}

Ended watch(Box& box, Company& company) { return Watch(box, company).run(); }

void clean(Box& box, bool keep, Ended& ended) {
  ended.oom_kills = box.cgroups.oom_kills();
  ended.leftovers = box.cgroups.remove();
  // While a cgroup is left its name must be found again.
  if (!ended.leftovers.empty()) return;
  if (keep)
    box.directory.forget_own_files();
  else
    ended.leftovers = box.directory.remove();
}

}  // namespace sluicebox::keeper
