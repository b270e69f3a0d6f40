#include "walls/user.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>

#include "walls/failure.h"

namespace sluicebox::walls {

namespace {

// Ids that no distribution hands out: above those of subordinate ids and of systemd's containers, below 2^31, from
// where on some programs take an id for a negative number.
constexpr std::uint32_t kFirstRange = 0x70000000;
constexpr std::uint32_t kRanges = 0xFFD;

// An abstract socket's name is exclusive in a network namespace and goes with its owner, however that ends.
Result<UniqueFd> claim_range(std::uint32_t first) {
  UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return failure(errno, "make a socket");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const int length = std::snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "sluicebox-ids-%u", first);
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + static_cast<std::size_t>(length));
  // bind() takes every family's address by the type of its beginning.
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), size) == 0) return socket;
  if (errno != EADDRINUSE) return failure(errno, "claim a range of ids");
  Error taken(ErrorCode::kInUse, "the box's range of ids is taken by another box");
  taken.os_error = EADDRINUSE;
  return taken;
}

bool may_map_ranges() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  // capget has no wrapper in the C library.
  if (::syscall(SYS_capget, &header, data) != 0) return false;
  const auto has = [&](int capability) { return ((data[0].effective >> capability) & 1U) != 0; };
  return has(CAP_SETUID) && has(CAP_SETGID) && has(CAP_SYS_ADMIN);
}

// Within a container's own user namespace these ids may not exist.
bool mapped_here(std::uint32_t id) {
  std::FILE* file = std::fopen("/proc/self/uid_map", "re");
  if (file == nullptr) return false;
  unsigned long inside = 0;
  unsigned long outside = 0;
  unsigned long count = 0;
  bool found = false;
  while (!found && std::fscanf(file, "%lu %lu %lu", &inside, &outside, &count) == 3)
    found = id >= inside && id - inside + kIdsPerBox <= count;
  std::fclose(file);
  return found;
}

Status write_text(const std::string& path, const std::string& text) {
  const UniqueFd file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!file.valid() || ::write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    return failure(errno, "write the box's id map", path).advise("user namespaces may be turned off on this host");
  return ok_status();
}

}  // namespace

Result<IdRange> choose_ids(std::uint32_t wanted, std::uint64_t seed) {
  if (::geteuid() != 0) return IdRange{};
  if (!may_map_ranges() || !mapped_here(kFirstRange)) {
    // Root of a container that has no ids to give away: single ids would make box root the root that runs us.
    Error error(ErrorCode::kUnsupported, "root of this host may not map a range of ids for the box");
    return std::move(error).advise("run as an ordinary user, or with CAP_SYS_ADMIN, CAP_SETUID and CAP_SETGID");
  }
  if (wanted != 0) return IdRange{wanted, TRY(claim_range(wanted))};
  for (std::uint32_t tried = 0; tried < kRanges; ++tried) {
    const std::uint32_t first = kFirstRange + static_cast<std::uint32_t>((seed + tried) % kRanges) * kIdsPerBox;
    auto claim = claim_range(first);
    if (claim.ok()) return IdRange{first, std::move(claim).value()};
    if (claim.error().code != ErrorCode::kInUse) return std::move(claim).error();
  }
  return Error(ErrorCode::kInUse, "every range of ids is taken by a box");
}

Status write_id_maps(pid_t process, std::uint32_t first) {
  const std::string proc = "/proc/" + std::to_string(process);
  if (first != 0) {
    const std::string map = "0 " + std::to_string(first) + " " + std::to_string(kIdsPerBox);
    TRY(write_text(proc + "/uid_map", map));
    return write_text(proc + "/gid_map", map);
  }
  // Before the gid map, or dropping a group could open what a group is shut out of.
  TRY(write_text(proc + "/setgroups", "deny"));
  TRY(write_text(proc + "/uid_map", "0 " + std::to_string(::geteuid()) + " 1"));
  return write_text(proc + "/gid_map", "0 " + std::to_string(::getegid()) + " 1");
}

Status become_root(bool range) {
  if (range && ::setgroups(0, nullptr) != 0) return failure(errno, "drop the groups of the host");
  if (::setresgid(0, 0, 0) != 0 || ::setresuid(0, 0, 0) != 0) return failure(errno, "become root of the box");
  return ok_status();
}

}  // namespace sluicebox::walls
