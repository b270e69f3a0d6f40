#include "image/locks.h"

#include <fcntl.h>

#include <cerrno>
#include <optional>

#include "base/mutex.h"
#include "image/printable.h"

namespace sluicebox::image {

namespace {

// The bytes are those of QEMU's block/file-posix.c (RAW_LOCK_PERM_BASE, RAW_LOCK_SHARED_BASE); the names and their
// order are BLK_PERM_* of include/block/block-common.h. Byte kUses + i: "I use i". Byte kRefuses + i: "nobody else may
// use i".
constexpr unsigned kUses = 100;
constexpr unsigned kRefuses = 200;
constexpr const char* kPermissionNames[] = {"consistent read", "write", "write unchanged", "resize"};
constexpr unsigned kPermissions = 4;

constexpr unsigned bit(unsigned permission) { return 1u << permission; }
constexpr unsigned kConsistentRead = bit(0), kWrite = bit(1), kResize = bit(3);

struct Permissions {
  unsigned uses, refuses;
};
constexpr Permissions permissions_of(LockMode mode) {
  if (mode == LockMode::kReader) return {.uses = kConsistentRead, .refuses = kWrite | kResize};
  return {.uses = kConsistentRead | kWrite | kResize, .refuses = kWrite | kResize};
}

struct flock one_byte(short type, unsigned byte, unsigned count = 1) {
  struct flock lock = {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(byte);
  lock.l_len = static_cast<off_t>(count);
  return lock;
}

// 0, or errno. Raw fcntl: OFD locks belong to the open file description, so closing another descriptor of the same file
// leaves them, and two opens in this process conflict like two processes.
int set_lock(int fd, short type, unsigned byte, unsigned count = 1) {
  struct flock lock = one_byte(type, byte, count);
  while (::fcntl(fd, F_OFD_SETLK, &lock) != 0) {
    if (errno != EINTR) return errno;
  }
  return 0;
}

// Whether another open file description holds any lock on the byte; an error of the call itself counts as free, for the
// locks of this protocol were taken before.
bool held_by_another(int fd, unsigned byte) {
  struct flock lock = one_byte(F_WRLCK, byte);
  return ::fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

void release(int fd) {
  set_lock(fd, F_UNLCK, kUses, kPermissions);
  set_lock(fd, F_UNLCK, kRefuses, kPermissions);
}

bool means_unsupported(int error) {
  return error == EINVAL || error == ENOLCK || error == ENOSYS || error == EOPNOTSUPP;
}

Error locked(const std::string& what, LockMode mode, const std::string& path) {
  const char* advice = mode == LockMode::kReader
                           ? "stop the program that writes it, or read it with shared: true where that is offered"
                           : "stop the program that has it open; a running VM's disk is rebased through its runtime";
  return Error(ErrorCode::kImageLocked, printable(path) + " is in use: " + what).on(path).advise(advice);
}

std::optional<Error> conflict(int fd, Permissions wanted, LockMode mode, const std::string& path) {
  for (unsigned i = 0; i < kPermissions; ++i) {
    if ((wanted.uses & bit(i)) != 0 && held_by_another(fd, kRefuses + i)) {
      return locked(std::string("failed to get \"") + kPermissionNames[i] + "\" lock", mode, path);
    }
  }
  for (unsigned i = 0; i < kPermissions; ++i) {
    if ((wanted.refuses & bit(i)) != 0 && held_by_another(fd, kUses + i)) {
      return locked(std::string("failed to get shared \"") + kPermissionNames[i] + "\" lock", mode, path);
    }
  }
  return std::nullopt;
}

}  // namespace

Result<LockOutcome> lock_image(int fd, LockMode mode, const std::string& path) {
  // Announce, then look: two that announce at once see each other and both give up. Within this process one at a time,
  // so that of two operations here exactly one loses.
  static Mutex one_at_a_time;
  const MutexLock guard(one_at_a_time);

  const Permissions wanted = permissions_of(mode);
  for (const auto& [base, set] : {std::pair{kUses, wanted.uses}, std::pair{kRefuses, wanted.refuses}}) {
    for (unsigned i = 0; i < kPermissions; ++i) {
      if ((set & bit(i)) == 0) continue;
      const int error = set_lock(fd, F_RDLCK, base + i);
      if (error == 0) continue;
      release(fd);
      if (means_unsupported(error)) return LockOutcome::kUnavailable;
      if (error == EAGAIN || error == EACCES) {
        return locked("failed to lock byte " + std::to_string(base + i), mode, path);
      }
      return os_error(error, "cannot lock " + printable(path), path);
    }
  }
  if (std::optional<Error> found = conflict(fd, wanted, mode, path)) {
    release(fd);
    return *std::move(found);
  }
  return LockOutcome::kHeld;
}

}  // namespace sluicebox::image
