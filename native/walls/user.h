// user.h: the box's user namespace: which ids outside stand behind those inside.
// Knows: id maps. Does not know: boxes, other namespaces.
// Threads: the keeper's one.
#pragma once

#include <sys/types.h>

#include <cstdint>

#include "base/result.h"
#include "base/unique_fd.h"

namespace sluicebox::walls {

inline constexpr std::uint32_t kIdsPerBox = 65536;

// The box's ids 0 to 65535 outside; without a range, box root is the user that runs the keeper, the only id there is.
struct IdRange {
  std::uint32_t first = 0;  // 0: no range, one id only
  UniqueFd claim;           // held: no other keeper of this host takes the same range
};

// Under root a range of its own, at `wanted` if that is not 0; under a user none. kInUse: `wanted` is taken.
Result<IdRange> choose_ids(std::uint32_t wanted, std::uint64_t seed);

// Of a process in a user namespace of its own, which does not run in it yet.
Status write_id_maps(pid_t process, std::uint32_t first);

// From within, once the maps stand: root of the box, without any group of the host.
Status become_root(bool range);

}  // namespace sluicebox::walls
