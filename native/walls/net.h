// net.h: the box's network namespace: a loopback of its own that is up, and nothing else.
// Threads: the caller's.
#pragma once

#include "base/result.h"

namespace sluicebox::walls {

Status raise_loopback();

}  // namespace sluicebox::walls
