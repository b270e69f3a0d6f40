// setup.h: the few words between the keeper and PID 1 while the walls are built.
// Knows: frames. Threads: one at each end.
//
// keeper: kHello (the id maps stand; with the trees that it took), kPing (the cgroups are joined: go on, with a Rest)
// PID 1: kLaunchFailed, or kLaunched right before it becomes the agent; then its end closes.
#pragma once

#include <span>
#include <vector>

#include "base/unique_fd.h"
#include "protocol/packet_socket.h"
#include "walls/rootfs.h"

namespace sluicebox::keeper {

struct SetupWord {
  protocol::Type type{};
  std::vector<std::byte> payload;
  std::vector<UniqueFd> descriptors;
};

// What PID 1 need not know while it builds the root: all that sets one box of a kind apart from another.
struct Rest {
  walls::RootDetails root;
  std::uint64_t processes = 0;  // 0: no limit
};
std::vector<std::byte> encode(const Rest& rest);
Result<Rest> decode_rest(Bytes bytes);

Status say(int socket, protocol::Type word, Bytes payload = {}, std::span<const int> descriptors = {});
// kClosed: the other end is gone.
Result<SetupWord> hear(int socket);

}  // namespace sluicebox::keeper
