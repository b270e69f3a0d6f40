// launch.h: a box from its order: cgroups, namespaces, walls, PID 1.
// Knows: walls, the box's directory. Does not know: how a box is watched and ended.
// Threads: the keeper's one.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "keeper/box_directory.h"
#include "keeper/spare.h"
#include "protocol/messages.h"
#include "walls/cgroup.h"
#include "walls/process.h"
#include "walls/user.h"

namespace sluicebox::keeper {

// A kLaunch as it came, with its descriptors named.
struct Order {
  protocol::Launch launch;
  UniqueFd session;
  UniqueFd agent;
  UniqueFd directory;
  UniqueFd lock;  // of that directory, held by whoever sent the order
  UniqueFd root;  // kDirectory only
};

struct Box {
  BoxDirectory directory;
  walls::IdRange ids;
  walls::Cgroups cgroups;
  walls::Process first;
  UniqueFd link;
  std::vector<std::string> warnings;
  bool exclusive = false;           // there is no session beside the owner's
  std::uint64_t started_at_ms = 0;  // of the epoch
};

// `spare`: taken if it fits the order, else ended. `owner`: when it hangs up meanwhile, kClosed. A failure leaves
// nothing: no process, mount, cgroup, file.
Result<Box> launch(Order order, std::optional<Spare> spare, int owner);

}  // namespace sluicebox::keeper
