// beginning.h: a PID 1 on its way: in its namespaces, its id maps written, before it is told to go on.
// Knows: namespaces, id maps, the first process. Does not know: cgroups, orders.
// Threads: the keeper's one.
#pragma once

#include "base/result.h"
#include "base/unique_fd.h"
#include "keeper/first_process.h"
#include "walls/process.h"
#include "walls/user.h"

namespace sluicebox::keeper {

struct Beginning {
  walls::IdRange ids;
  walls::Process first;
  UniqueFd link;   // ours; the agent hears of sessions on it
  UniqueFd setup;  // ours: see setup.h
};

// `plan` but for its two sockets, which are made here. It waits for kHello.
Result<Beginning> begin(FirstProcess plan, walls::IdRange ids);

// Kills and reaps it.
void end(Beginning& beginning);

}  // namespace sluicebox::keeper
