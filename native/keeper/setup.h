// setup.h: the few words between the keeper and PID 1 while the walls are built.
// Knows: frames. Threads: one at each end.
//
// keeper: kHello (the id maps stand; with the trees that it took), kPing (the cgroups are joined: go on)
// PID 1: kLaunchFailed, or kLaunched right before it becomes the agent; then its end closes.
#pragma once

#include <span>
#include <vector>

#include "base/unique_fd.h"
#include "protocol/packet_socket.h"

namespace sluicebox::keeper {

struct SetupWord {
  protocol::Type type{};
  std::vector<std::byte> payload;
  std::vector<UniqueFd> descriptors;
};

Status say(int socket, protocol::Type word, Bytes payload = {}, std::span<const int> descriptors = {});
// kClosed: the other end is gone.
Result<SetupWord> hear(int socket);

}  // namespace sluicebox::keeper
