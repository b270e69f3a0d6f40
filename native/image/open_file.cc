#include "image/open_file.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <string_view>

#include "image/printable.h"

namespace sluicebox::image {

namespace {

const char* kind_name(mode_t mode) {
  if (S_ISDIR(mode)) return "a directory";
  if (S_ISFIFO(mode)) return "a FIFO";
  if (S_ISSOCK(mode)) return "a socket";
  if (S_ISCHR(mode)) return "a character device";
  if (S_ISBLK(mode)) return "a block device";
  return "a special file";
}

Status require_disk_file(mode_t mode, const std::string& path, bool named_by_caller) {
  if (S_ISREG(mode) || (S_ISBLK(mode) && named_by_caller)) return {};
  const std::string what = printable(path) + " is " + kind_name(mode) + ", not a disk image";
  if (!named_by_caller) {
    return Error(ErrorCode::kPathRefused, what).on(path).advise("an image may only name regular files");
  }
  return Error(ErrorCode::kInvalidArgument, what).on(path).advise("name a regular file or a block device");
}

Status require_plain_path(const std::string& path, bool named_by_caller) {
  const ErrorCode code = named_by_caller ? ErrorCode::kInvalidArgument : ErrorCode::kPathRefused;
  if (path.empty()) return Error(code, "an empty string is not the path of an image");
  if (path.find('\0') != std::string::npos) {
    return Error(code, "the path " + printable(path) + " contains a NUL").on(path);
  }
  return {};
}

FileIdentity identity_of(const struct stat& status) { return {.device = status.st_dev, .inode = status.st_ino}; }

UniqueFd open_path(int start, const std::string& path, int flags) {
  return UniqueFd(::openat(start, path.c_str(), O_PATH | O_CLOEXEC | flags));
}

bool is_same_file(int one, int other) {
  struct stat first = {};
  struct stat second = {};
  return ::fstat(one, &first) == 0 && ::fstat(other, &second) == 0 && identity_of(first) == identity_of(second);
}

// `fd` lies in the directory that `directory` is open on, or below it. The paths of both only tell where to look: they
// may change between one question and the next, so the way is walked from the open directory, and must end at `fd`.
bool lies_below(int directory, int fd) {
  const Result<std::string> outer = path_of_fd(directory);
  const Result<std::string> inner = path_of_fd(fd);
  if (!outer.ok() || !inner.ok() || !inner.value().starts_with(outer.value())) return false;
  std::string_view rest = std::string_view(inner.value()).substr(outer.value().size());
  if (!rest.empty() && rest[0] != '/' && outer.value() != "/") return false;
  UniqueFd at = open_path(directory, ".", O_DIRECTORY);
  while (at.valid()) {
    while (rest.starts_with('/')) rest.remove_prefix(1);
    if (rest.empty()) return is_same_file(at.get(), fd);
    const std::string part(rest.substr(0, rest.find('/')));
    rest.remove_prefix(part.size());
    at = open_path(at.get(), part, O_NOFOLLOW);
  }
  return false;
}

bool is_allowed(int fd, const NamedBy& named_by, const PathPolicy& policy) {
  if (policy.allows(fd)) return true;
  if (named_by.caller || policy.restricts_callers()) return false;
  return std::ranges::any_of(named_by.own_directories, [&](int own) { return lies_below(own, fd); });
}

Error outside(const std::string& path, bool named_by_caller) {
  return Error(ErrorCode::kPathRefused,
               printable(path) + (named_by_caller ? " lies outside of the allowed directories"
                                                  : ", which an image names, lies outside of that "
                                                    "image's directory and of the allowed ones"))
      .on(path)
      .advise("add its directory to allowPaths if the image is trusted");
}

// Whether a path that leads nowhere would lead to an allowed place: otherwise the answer would tell what exists
// elsewhere. The nearest directory that is there decides; a symlink may lead anywhere.
bool absence_may_be_told(std::string path, const NamedBy& named_by, const PathPolicy& policy) {
  while (true) {
    const std::string folder = directory_of(path);
    const UniqueFd directory = open_path(named_by.start, folder, O_DIRECTORY);
    if (!directory.valid()) {
      if (folder == path || folder == ".") return false;
      path = folder;
      continue;
    }
    if (!is_allowed(directory.get(), named_by, policy)) return false;
    struct stat status = {};
    const std::string name = last_part(path);
    const bool link =
        ::fstatat(directory.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(status.st_mode);
    return named_by.caller || !link;
  }
}

}  // namespace

std::vector<int> ImageDirectories::open() const {
  std::vector<int> fds;
  for (const UniqueFd* each : {&named, &home}) {
    if (each->valid()) fds.push_back(each->get());
  }
  return fds;
}

Result<FoundFile> FoundFile::find(const std::string& path, const NamedBy& named_by, const PathPolicy& policy) {
  TRY(require_plain_path(path, named_by.caller));
  FoundFile found;
  found.path_ = named_by.shown.empty() ? path : named_by.shown;
  TRY(found.look_up(path, named_by, policy));

  struct stat status = {};
  if (::fstat(found.fd_.get(), &status) != 0) {
    return os_error(errno, "cannot examine " + printable(found.path_), found.path_);
  }
  found.identity_ = identity_of(status);
  found.regular_ = S_ISREG(status.st_mode);
  const bool judged = !named_by.caller || policy.restricts_callers();
  if (judged && std::ranges::find(named_by.also_named, found.identity_) == named_by.also_named.end() &&
      !is_allowed(found.fd_.get(), named_by, policy)) {
    return outside(found.path_, named_by.caller);
  }
  TRY(require_disk_file(status.st_mode, found.path_, named_by.caller));
  found.find_home();
  return found;
}

// O_PATH opens nothing: no FIFO blocks, no device reacts, no permission on the content is needed yet.
Status FoundFile::look_up(const std::string& path, const NamedBy& named_by, const PathPolicy& policy) {
  const std::string last = last_part(path);
  name_ = last.empty() ? std::string(1, '.') : last;
  directories_.named = open_path(named_by.start, directory_of(path), O_DIRECTORY);
  if (directories_.named.valid()) fd_ = open_path(directories_.named.get(), name_, 0);
  if (fd_.valid()) return {};
  const int error = errno;
  const bool judged = !named_by.caller || policy.restricts_callers();
  if (judged && !absence_may_be_told(path, named_by, policy)) return outside(path_, named_by.caller);
  return os_error(error, "cannot open the image " + printable(path_), path_);
}

void FoundFile::find_home() {
  // What a caller passes as /proc/self/fd/N may have no name of its own.
  Result<std::string> resolved = path_of_fd(fd_.get());
  resolved_path_ = resolved.ok() ? std::move(resolved).value() : path_;
  UniqueFd home = open_path(AT_FDCWD, directory_of(resolved_path_), O_DIRECTORY);
  if (!home.valid() || is_same_file(home.get(), directories_.named.get())) return;
  const UniqueFd again = open_path(home.get(), last_part(resolved_path_), O_NOFOLLOW);
  if (again.valid() && is_same_file(again.get(), fd_.get())) directories_.home = std::move(home);
}

bool FoundFile::still_named() const {
  struct stat status = {};
  return ::fstatat(directories_.named.get(), name_.c_str(), &status, 0) == 0 && identity_of(status) == identity_;
}

Result<std::unique_ptr<PosixFile>> FoundFile::open(bool writable) const {
  const std::string through = "/proc/self/fd/" + std::to_string(fd_.get());
  // O_NONBLOCK has no effect on regular files; on a block device without a medium it avoids a wait.
  const int flags = (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK;
  UniqueFd fd(::open(through.c_str(), flags));
  if (!fd.valid()) {
    return os_error(errno, std::string("cannot open the image ") + printable(path_) + (writable ? " for writing" : ""),
                    path_);
  }
  return std::make_unique<PosixFile>(std::move(fd), path_);
}

bool has_protocol(const std::string& reference) {
  const std::size_t mark = reference.find_first_of(":/");
  return mark != std::string::npos && reference[mark] == ':';
}

Status require_file_reference(const std::string& reference) {
  if (!has_protocol(reference)) return {};
  return Error(ErrorCode::kInvalidArgument, "the backing " + printable(reference) + " reads as a protocol, not a file")
      .on(reference)
      .advise("write './' before the name of a file with a colon in it");
}

std::string directory_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

std::string last_part(const std::string& path) { return path.substr(path.rfind('/') + 1); }

Result<UniqueFd> open_directory_of(const std::string& path) {
  const std::string folder = directory_of(path);
  UniqueFd fd = open_path(AT_FDCWD, folder, O_DIRECTORY);
  if (!fd.valid()) return os_error(errno, "cannot open the directory " + printable(folder), folder);
  return fd;
}

}  // namespace sluicebox::image
