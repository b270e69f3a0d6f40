#include "keeper/box_directory.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>
#include <memory>
#include <string_view>

#include "keeper/door.h"
#include "walls/failure.h"

namespace sluicebox::keeper {

namespace {

using walls::failure;

constexpr int kDeepest = 256;

// The lock of a file that was removed meanwhile locks nothing.
bool still_there(int directory, int file) {
  struct stat held{};
  struct stat named{};
  return ::fstat(file, &held) == 0 && ::fstatat(directory, "lock", &named, AT_SYMLINK_NOFOLLOW) == 0 &&
         held.st_dev == named.st_dev && held.st_ino == named.st_ino;
}

// openat2 has no wrapper in the C library.
UniqueFd subdirectory(int above, const char* name) {
  open_how how{};
  how.flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV;
  return UniqueFd(static_cast<int>(::syscall(SYS_openat2, above, name, &how, sizeof how)));
}

void empty(int directory, const std::string& path, int depth, std::vector<std::string>& left);

void remove_entry(int directory, const char* name, const std::string& path, int depth, std::vector<std::string>& left) {
  if (::unlinkat(directory, name, 0) == 0) return;
  if (errno == EISDIR || errno == EPERM) {
    const UniqueFd below = subdirectory(directory, name);
    if (below.valid() && depth < kDeepest) empty(below.get(), path, depth + 1, left);
    if (::unlinkat(directory, name, AT_REMOVEDIR) == 0) return;
  }
  left.push_back(path + ": " + std::strerror(errno));
}

// Owns the descriptor that fdopendir() took.
struct CloseDirectory {
  void operator()(DIR* directory) const { ::closedir(directory); }
};

void empty(int directory, const std::string& path, int depth, std::vector<std::string>& left) {
  UniqueFd own(::openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const std::unique_ptr<DIR, CloseDirectory> entries(own.valid() ? ::fdopendir(own.get()) : nullptr);
  if (!entries) {
    left.push_back(path + ": " + std::strerror(errno));
    return;
  }
  own.release();
  while (const dirent* entry = ::readdir(entries.get())) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") remove_entry(directory, entry->d_name, path + "/" + entry->d_name, depth, left);
  }
}

}  // namespace

Result<BoxDirectory> BoxDirectory::open(UniqueFd directory, UniqueFd lock, std::string id) {
  BoxDirectory opened;
  opened.directory_ = std::move(directory);
  opened.id_ = std::move(id);
  const int at = opened.directory_.get();
  opened.lock_ = std::move(lock);
  const bool locked = ::flock(opened.lock_.get(), LOCK_EX | LOCK_NB) == 0;
  if (!locked && errno != EWOULDBLOCK) return failure(errno, "lock the box", opened.path());
  if (!locked || !still_there(at, opened.lock_.get())) {
    Error in_use(ErrorCode::kInUse, "another process runs this box");
    in_use.os_error = EWOULDBLOCK;
    in_use.path = opened.path();
    return in_use;
  }
  return opened;
}

BoxDirectory BoxDirectory::unlocked(UniqueFd directory, std::string id) {
  BoxDirectory opened;
  opened.directory_ = std::move(directory);
  opened.id_ = std::move(id);
  return opened;
}

std::string BoxDirectory::path() const {
  char path[PATH_MAX];
  const std::string link = "/proc/self/fd/" + std::to_string(directory_.get());
  const ssize_t length = ::readlink(link.c_str(), path, sizeof path);
  return length < 0 ? std::string() : std::string(path, static_cast<std::size_t>(length));
}

Status BoxDirectory::record_cgroups(const std::vector<std::string>& cgroups) const {
  if (cgroups.empty()) return ok_status();
  const UniqueFd file(
      ::openat(directory_.get(), "cgroups", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600));
  std::string text;
  for (const std::string& cgroup : cgroups) text += cgroup + "\n";
  if (!file.valid() || ::write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    return failure(errno, "record the box's cgroups", path());
  return ok_status();
}

void BoxDirectory::forget_own_files() const {
  ::unlinkat(directory_.get(), "cgroups", 0);
  ::unlinkat(directory_.get(), kDoorName, 0);
  // The kernel's own below a kept layer: nobody may read it, so removing the layer would stumble over it. It makes it
  // anew.
  ::unlinkat(directory_.get(), "layer/work/work", AT_REMOVEDIR);
  ::unlinkat(directory_.get(), "lock", 0);
}

std::vector<std::string> BoxDirectory::remove() const {
  std::vector<std::string> left;
  const std::string name = path();
  empty(directory_.get(), name, 0, left);
  if (!left.empty()) return left;
  // Its name is its id; only if that still leads here.
  const UniqueFd above(::openat(directory_.get(), "..", O_PATH | O_DIRECTORY | O_CLOEXEC));
  struct stat held{};
  struct stat named{};
  const bool same = above.valid() && ::fstat(directory_.get(), &held) == 0 &&
                    ::fstatat(above.get(), id_.c_str(), &named, AT_SYMLINK_NOFOLLOW) == 0 &&
                    held.st_dev == named.st_dev && held.st_ino == named.st_ino;
  if (!same || ::unlinkat(above.get(), id_.c_str(), AT_REMOVEDIR) != 0)
    left.push_back(name + ": " + (same ? std::strerror(errno) : "it bears another name than the box's"));
  return left;
}

}  // namespace sluicebox::keeper
