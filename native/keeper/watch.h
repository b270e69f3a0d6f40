// watch.h: a running box until its end, who speaks with its keeper meanwhile, and the removal of what is left of it.
// Knows: the box, sockets of its owner and of others. Threads: the keeper's one.
#pragma once

#include <vector>

#include "keeper/launch.h"
#include "protocol/frame.h"

namespace sluicebox::keeper {

struct Company {
  UniqueFd owner;                // its hang-up ends the box; none while the box is left to itself
  UniqueFd door;                 // where others come in; none: they cannot
  std::vector<UniqueFd> others;  // they come and go as they like

  void tell(protocol::Type word, Bytes payload) const;
};

// Returns when PID 1 has ended: by itself, by a kStop, or because the owner hung up.
protocol::Ended watch(Box& box, Company& company);

// Everything of the box but, with `keep`, its layer and record. Adds to `ended` what could not be removed.
void clean(Box& box, bool keep, protocol::Ended& ended);

}  // namespace sluicebox::keeper
