// door.h: the socket in a box's directory by which other processes of its user find the keeper.
// Knows: Unix sockets, who is at the other end. Does not know: what is said.
// Threads: the keeper's one.
#pragma once

#include <optional>

#include "base/result.h"
#include "base/unique_fd.h"

namespace sluicebox::keeper {

inline constexpr const char* kDoorName = "keeper.sock";

// Listens, SEQPACKET, for this user alone. The name is replaced: whoever holds the box's lock is its one keeper.
Result<UniqueFd> open_door(int directory);
// Who has come, unless it is another user, or nobody any more. What is said to it never waits.
std::optional<UniqueFd> let_in(int door);

}  // namespace sluicebox::keeper
