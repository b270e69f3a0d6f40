#include "box/removal.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "base/unique_fd.h"

namespace sluicebox::box {

namespace {

constexpr std::chrono::seconds kDying{2};
constexpr std::chrono::milliseconds kLook{5};
constexpr int kMaxDepth = 4096;  // far past any path that a program can make by mkdir -p

Status empty_directory(UniqueFd directory, dev_t device, int depth);

Status remove_entry(int directory, const char* name, dev_t device, int depth) {
  struct stat status{};
  if (::fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) != 0) {
    return errno == ENOENT ? ok_status() : Status(os_error(errno, "cannot examine a file", name));
  }
  if (!S_ISDIR(status.st_mode)) {
    if (::unlinkat(directory, name, 0) != 0 && errno != ENOENT) return os_error(errno, "cannot remove a file", name);
    return ok_status();
  }
  if (status.st_dev != device) return os_error(EXDEV, "something is mounted here", name);
  UniqueFd child(::openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  // Two that remove the same box meet here: what one of them has taken away is gone for both.
  if (!child.valid() && errno == ENOENT) return ok_status();
  if (!child.valid()) return os_error(errno, "cannot open a directory", name);
  TRY(empty_directory(std::move(child), device, depth + 1));
  if (::unlinkat(directory, name, AT_REMOVEDIR) != 0 && errno != ENOENT) {
    return os_error(errno, "cannot remove a directory", name);
  }
  return ok_status();
}

Status empty_directory(UniqueFd directory, dev_t device, int depth) {
  if (depth > kMaxDepth) return os_error(ELOOP, "directories are nested too deeply to be removed");
  // Held twice: by the stream, and to resolve names against.
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(::fdopendir(::fcntl(directory.get(), F_DUPFD_CLOEXEC, 0)),
                                                   ::closedir);
  if (stream == nullptr) return os_error(errno, "cannot list a directory");
  std::vector<std::string> names;
  while (const dirent* each = ::readdir(stream.get())) {
    const std::string name = each->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  for (const std::string& name : names) TRY(remove_entry(directory.get(), name.c_str(), device, depth));
  return ok_status();
}

// 0, or errno. A box whose keeper was killed dies with it, but not in the same moment: its cgroups are busy until then.
int remove_when_empty(const std::string& cgroup) {
  const auto deadline = std::chrono::steady_clock::now() + kDying;
  while (::rmdir(cgroup.c_str()) != 0 && errno != ENOENT) {
    if (errno != EBUSY || std::chrono::steady_clock::now() >= deadline) return errno;
    std::this_thread::sleep_for(kLook);
  }
  return 0;
}

}  // namespace

Status remove_tree(int parent, const std::string& name) {
  struct stat status{};
  if (::fstatat(parent, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
    return errno == ENOENT ? ok_status() : Status(os_error(errno, "cannot examine a directory", name));
  }
  return remove_entry(parent, name.c_str(), status.st_dev, 0);
}

Status remove_cgroups(int box, const std::string& id) {
  const UniqueFd file(::openat(box, "cgroups", O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!file.valid()) return ok_status();
  std::array<char, 8192> text{};
  const ssize_t got = ::read(file.get(), text.data(), text.size());
  std::string_view left(text.data(), static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
  const std::string ours = "/sluicebox-" + id;
  while (!left.empty()) {
    const std::string line(left.substr(0, left.find('\n')));
    left.remove_prefix(std::min(left.size(), line.size() + 1));
    // Only what bears our id, wherever the file points.
    if (line.size() <= ours.size() || line.compare(line.size() - ours.size(), ours.size(), ours) != 0) continue;
    if (const UniqueFd kill(::open((line + "/cgroup.kill").c_str(), O_WRONLY | O_CLOEXEC)); kill.valid()) {
      [[maybe_unused]] const ssize_t put = ::write(kill.get(), "1", 1);
    }
    if (const int failed = remove_when_empty(line); failed != 0) {
      return os_error(failed, "cannot remove the cgroup of a box that has ended", line);
    }
  }
  return ok_status();
}

}  // namespace sluicebox::box
