// first_process.h: what PID 1 of a box does before it is the agent: builds the walls from within, then executes it.
// Knows: the order of the walls. Does not know: cgroups, the box's directory, the owner.
// Threads: a process of its own with one thread.
#pragma once

#include "walls/rootfs.h"

namespace sluicebox::keeper {

struct FirstProcess {
  walls::RootPlan root;
  bool range = false;  // of ids
  int setup = -1;      // to the keeper: see setup.h
  int link = -1;
  int agent = -1;
};

[[noreturn]] void become_first_process(FirstProcess process);

}  // namespace sluicebox::keeper
