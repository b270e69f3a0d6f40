// spawn_error.h: why a program could not be started, in words that name what was asked for.
// Knows: messages. Threads: any.
#pragma once

#include "base/result.h"
#include "protocol/messages.h"

namespace sluicebox::box {

// kExecSpawn, or kUnsupported for a user that this host cannot map.
Error spawn_error(const protocol::Spawn& spawn, const protocol::SpawnFailed& failed);

}  // namespace sluicebox::box
