#include "keeper/watch.h"

#include <poll.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>

#include "keeper/setup.h"

namespace sluicebox::keeper {

namespace {

using protocol::Ended;
using protocol::Type;

// For the agent to kill what is left when the grace is over, and to end itself.
constexpr std::uint64_t kSlackMs = 1000;
constexpr std::uint64_t kLongestGraceMs = std::uint64_t{1} << 40;

std::uint64_t now_ms() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1000 + static_cast<std::uint64_t>(now.tv_nsec) / 1000000;
}

class Watch {
 public:
  Watch(Box& box, int owner) : box_(box), owner_(owner) {}

  Ended run() {
    while (!step()) {
    }
    const walls::ProcessEnd end = walls::reap(box_.first.handle.get());
    ended_.signaled = end.signaled;
    ended_.code = static_cast<std::uint32_t>(end.code);
    ended_.forced = forced_ || (grace_end_ && now_ms() >= *grace_end_);
    return ended_;
  }

 private:
  // True once PID 1 has ended.
  bool step() {
    // Of the link only its end counts: what a box writes there is never read.
    pollfd ends[] = {
        {box_.first.handle.get(), POLLIN, 0}, {owner_, POLLIN, 0}, {link_gone_ ? -1 : box_.link.get(), 0, 0}};
    // Once it is killed there is nothing to wait for but its end.
    if (::poll(ends, killed_ ? 1 : 3, timeout()) < 0) return false;
    if (ends[0].revents != 0) return true;
    if (killed_) return false;
    if (ends[2].revents != 0) {
      // The end itself is about to follow; an agent that lives on without its link does not for long.
      link_gone_ = true;
      end_by(now_ms() + kSlackMs);
    }
    if (ends[1].revents != 0) hear_owner();
    if (deadline_ && now_ms() >= *deadline_) {
      forced_ = true;
      kill();
    }
    return false;
  }

  int timeout() const {
    if (!deadline_ || killed_) return -1;
    const std::uint64_t now = now_ms();
    return *deadline_ <= now ? 0 : static_cast<int>(std::min<std::uint64_t>(*deadline_ - now, 1U << 30));
  }

  void hear_owner() {
    const auto word = hear(owner_);
    if (!word.ok()) return kill();
    if (word.value().type != Type::kStop) return;
    const auto stop = protocol::decode_stop(word.value().payload);
    if (!stop.ok()) return kill();
    ended_.asked = true;
    const std::uint64_t grace = std::min(stop.value().grace_ms, kLongestGraceMs);
    if (grace == 0) {
      forced_ = true;
      return kill();
    }
    // A later stop may only hasten it.
    const std::uint64_t end = now_ms() + grace;
    if (grace_end_ && *grace_end_ <= end) return;
    grace_end_ = end;
    end_by(end + kSlackMs);
    if (!say(box_.link.get(), Type::kShutdown, protocol::encode(protocol::Stop{grace})).ok()) kill();
  }

  void end_by(std::uint64_t time) { deadline_ = deadline_ ? std::min(*deadline_, time) : time; }

  void kill() {
    killed_ = true;
    walls::kill_process(box_.first.handle.get());
  }

  Box& box_;
  const int owner_;
  Ended ended_;
  std::optional<std::uint64_t> grace_end_;
  std::optional<std::uint64_t> deadline_;
  bool link_gone_ = false;
  bool forced_ = false;
  bool killed_ = false;
};

}  // namespace

Ended watch(Box& box, int owner) { return Watch(box, owner).run(); }

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
