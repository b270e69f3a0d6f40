// watch.h: a running box until its end, and the removal of what is left of it.
// Knows: the box, its owner's socket. Threads: the keeper's one.
#pragma once

#include "keeper/launch.h"

namespace sluicebox::keeper {

// Returns when PID 1 has ended: by itself, by the owner's kStop, or because the owner hung up.
protocol::Ended watch(Box& box, int owner);

// Everything of the box but, with `keep`, its layer and record. Adds to `ended` what could not be removed.
void clean(Box& box, bool keep, protocol::Ended& ended);

}  // namespace sluicebox::keeper
