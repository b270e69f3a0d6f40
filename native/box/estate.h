// estate.h: what an owner of a running box leaves with its keeper, and the next one finds.
// Knows: links, a machine's parts. Does not know: the keeper's socket, states.
// Threads: values only.
#pragma once

#include <optional>
#include <vector>

#include "box/machine.h"
#include "protocol/frame_link.h"
#include "protocol/messages.h"

namespace sluicebox::box {

struct Estate {
  protocol::FrameLink agent;
  std::optional<MachineParts> machine;
  Machine::Chains chains;  // of its disks
};

struct Bequest {
  protocol::Leave message;
  std::vector<UniqueFd> descriptors;
};
Bequest bequeath(Estate estate);

// kIo for what no owner leaves.
Result<Estate> inherit(const protocol::Given& given, std::vector<UniqueFd> descriptors);

}  // namespace sluicebox::box
