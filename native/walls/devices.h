// devices.h: the box's /dev: null zero full random urandom tty ptmx pts shm and the links to stdio, nothing else.
// Knows: mounts. Threads: PID 1 before its first program.
#pragma once

#include "base/result.h"

namespace sluicebox::walls {

// `shm`: a tree to become /dev/shm.
Status make_devices(int root, int shm);

}  // namespace sluicebox::walls
