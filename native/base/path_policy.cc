#include "base/path_policy.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <memory>
#include <string_view>

namespace sluicebox {

namespace {

std::string resolved_or_as_given(const std::string& directory) {
  if (directory.find('\0') != std::string::npos) return {};
  struct Free {
    void operator()(char* text) const { std::free(text); }  // NOLINT(cppcoreguidelines-no-malloc)
  };
  const std::unique_ptr<char, Free> real(::realpath(directory.c_str(), nullptr));
  return real ? std::string(real.get()) : directory;
}

bool lies_in(std::string_view path, std::string_view directory) {
  if (directory.empty() || directory[0] != '/') return false;
  while (directory.size() > 1 && directory.ends_with('/')) directory.remove_suffix(1);
  if (directory == "/") return true;
  return path.starts_with(directory) && (path.size() == directory.size() || path[directory.size()] == '/');
}

}  // namespace

PathPolicy::PathPolicy(std::vector<std::string> directories, bool restrict_callers)
    : directories_(std::move(directories)), restrict_callers_(restrict_callers) {
  for (std::string& directory : directories_) directory = resolved_or_as_given(directory);
}

bool PathPolicy::allows(int fd, const std::vector<std::string>& also) const {
  const Result<std::string> path = path_of_fd(fd);
  if (!path.ok()) return false;
  for (const auto* list : {&directories_, &also}) {
    for (const std::string& directory : *list) {
      if (lies_in(path.value(), directory)) return true;
    }
  }
  return false;
}

Result<std::string> path_of_fd(int fd) {
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  std::string path(256, '\0');
  for (;;) {
    const ssize_t length = ::readlink(link.c_str(), path.data(), path.size());
    if (length < 0) return os_error(errno, "cannot ask /proc where an open file lies");
    if (static_cast<std::size_t>(length) < path.size()) {
      path.resize(static_cast<std::size_t>(length));
      break;
    }
    path.resize(path.size() * 2);
  }
  // The text alone does not tell a deleted file from one whose name ends in " (deleted)", nor a path outside of our
  // root: only a path that leads back to the same inode counts.
  struct stat opened = {};
  struct stat named = {};
  if (::fstat(fd, &opened) != 0) return os_error(errno, "cannot examine an open file");
  if (path.empty() || path[0] != '/' || ::stat(path.c_str(), &named) != 0 || opened.st_dev != named.st_dev ||
      opened.st_ino != named.st_ino) {
    return Error(ErrorCode::kPathRefused, "an open file has no path of its own any more");
  }
  return path;
}

}  // namespace sluicebox
