#include "walls/landlock.h"

#include <fcntl.h>
#include <linux/landlock.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#include "base/unique_fd.h"
#include "walls/failure.h"

namespace sluicebox::walls {

namespace {

// As of ABI 6; the header of the build may be older. A kernel takes a shorter structure for zeros.
struct Ruleset {
  std::uint64_t handled_access_fs;
  std::uint64_t handled_access_net;
  std::uint64_t scoped;
};
constexpr std::uint64_t kScopeAbstractSocket = 1;
constexpr std::uint64_t kScopeSignal = 2;

}  // namespace

// The calls have no wrappers in the C library.
Status restrict_by_landlock() {
  const long abi = ::syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
  // ABI 1 denies every rename and link between directories and cannot be told otherwise.
  if (abi < 2) return ok_status();
  Ruleset rules{};
  rules.handled_access_fs = LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_REFER;
  if (abi >= 6) rules.scoped = kScopeAbstractSocket | kScopeSignal;
  const std::size_t size = abi >= 6 ? sizeof rules : sizeof rules.handled_access_fs;
  const UniqueFd ruleset(static_cast<int>(::syscall(SYS_landlock_create_ruleset, &rules, size, 0)));
  if (!ruleset.valid()) return failure(errno, "make landlock's rules");

  // Renaming between directories is denied by every ruleset that does not grant it.
  const UniqueFd root(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
  landlock_path_beneath_attr renames{};
  renames.allowed_access = LANDLOCK_ACCESS_FS_REFER;
  renames.parent_fd = root.get();
  if (::syscall(SYS_landlock_add_rule, ruleset.get(), LANDLOCK_RULE_PATH_BENEATH, &renames, 0) != 0)
    return failure(errno, "add to landlock's rules");
  if (::syscall(SYS_landlock_restrict_self, ruleset.get(), 0) != 0) return failure(errno, "install landlock's rules");
  return ok_status();
}

}  // namespace sluicebox::walls
