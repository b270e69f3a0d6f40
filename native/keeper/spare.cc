#include "keeper/spare.h"

#include <poll.h>
#include <time.h>
#include <unistd.h>

#include "keeper/setup.h"

namespace sluicebox::keeper {

namespace {

// The order's own bound follows; only the layer's beginning lies within this one.
constexpr std::uint64_t kStorage = std::uint64_t{1} << 30;

// Spares that are made at once look for ids at different places.
std::uint64_t seed() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_nsec) + static_cast<std::uint64_t>(::getpid());
}

}  // namespace

Result<Spare> Spare::make(int agent) {
  // Before the clone: what changes on the way is found too.
  walls::HostState host = TRY(walls::HostState::now());
  walls::IdRange ids = TRY(walls::choose_ids(0, seed()));
  FirstProcess plan;
  plan.agent = agent;
  plan.root.storage = kStorage;
  Beginning made = TRY(begin(std::move(plan), std::move(ids)));
  (void)say(made.setup.get(), protocol::Type::kHello);
  return Spare(std::move(host), std::move(made));
}

bool Spare::fits(const protocol::Launch& launch) const {
  if (launch.root != protocol::Root::kHost || launch.keep || launch.first_uid != 0) return false;
  // It says something, or hangs up, only when it has failed.
  pollfd setup{beginning_.setup.get(), POLLIN, 0};
  return ::poll(&setup, 1, 0) == 0 && host_.holds();
}

}  // namespace sluicebox::keeper
