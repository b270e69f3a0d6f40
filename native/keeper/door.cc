#include "keeper/door.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <string>

#include "walls/failure.h"

namespace sluicebox::keeper {

namespace {

constexpr int kBacklog = 16;

}  // namespace

Result<UniqueFd> open_door(int directory) {
  UniqueFd door(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!door.valid()) return walls::failure(errno, "make the keeper's socket");
  // By the descriptor: a home's path may be longer than an address.
  const std::string path = "/proc/self/fd/" + std::to_string(directory) + "/" + kDoorName;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  ::unlinkat(directory, kDoorName, 0);
  // Before it listens nobody gets in.
  const bool bound = ::bind(door.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 &&
                     ::fchmodat(directory, kDoorName, 0600, 0) == 0 && ::listen(door.get(), kBacklog) == 0;
  if (!bound) return walls::failure(errno, "listen for other processes", path);
  return door;
}

std::optional<UniqueFd> let_in(int door) {
  UniqueFd visitor(::accept4(door, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!visitor.valid()) return std::nullopt;
  ucred who{};
  socklen_t size = sizeof who;
  if (::getsockopt(visitor.get(), SOL_SOCKET, SO_PEERCRED, &who, &size) != 0 || who.uid != ::geteuid())
    return std::nullopt;
  return visitor;
}

}  // namespace sluicebox::keeper
