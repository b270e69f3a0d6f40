#include "image/open_file.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

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

}  // namespace

Result<FoundFile> FoundFile::find(const std::string& path, const NamedBy& named_by, const PathPolicy& policy) {
  TRY(require_plain_path(path, named_by.caller));
  FoundFile found;
  found.path_ = path;
  // O_PATH opens nothing: no FIFO blocks, no device reacts, no permission on the content is needed yet.
  found.fd_ = UniqueFd(::open(path.c_str(), O_PATH | O_CLOEXEC));
  if (!found.fd_.valid()) return os_error(errno, "cannot open the image " + printable(path), path);

  struct stat status = {};
  if (::fstat(found.fd_.get(), &status) != 0) return os_error(errno, "cannot examine " + printable(path), path);
  found.identity_ = {.device = status.st_dev, .inode = status.st_ino};

  const bool judged = !named_by.caller || policy.restricts_callers();
  if (judged && std::ranges::find(named_by.also_named, found.identity_) == named_by.also_named.end() &&
      !policy.allows(found.fd_.get(), named_by.allowed_directories)) {
    return Error(ErrorCode::kPathRefused,
                 printable(path) + (named_by.caller ? " lies outside of the allowed directories"
                                                    : ", which an image names, lies outside of that "
                                                      "image's directory and of the allowed ones"))
        .on(path)
        .advise("add its directory to allowPaths if the image is trusted");
  }
  TRY(require_disk_file(status.st_mode, path, named_by.caller));
  // What a caller passes as /proc/self/fd/N may have no name of its own.
  Result<std::string> resolved = path_of_fd(found.fd_.get());
  found.resolved_path_ = resolved.ok() ? std::move(resolved).value() : path;
  return found;
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

}  // namespace sluicebox::image
