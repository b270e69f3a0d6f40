// settle.h: makes the process fit to be the first of a box, whatever it inherited.
// Knows: descriptors, signals. Threads: one.
#pragma once

#include "base/unique_fd.h"

namespace sluicebox::agent {

// Closes every descriptor above `link`, which stays and closes on exec; -1: closes all. 0, 1 and 2 are what a spawn
// puts a process's own descriptors at: something is open there afterwards, so that nothing of the agent lies there.
bool settle_descriptors(int link);

// All signals blocked for good, default dispositions: what a spawned process inherits is then what it should have.
// Gives a descriptor that tells of children's ends.
UniqueFd settle_signals();

}  // namespace sluicebox::agent
