#include "image/ops/new_file.h"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>

#include "image/locks.h"
#include "image/open_file.h"
#include "image/printable.h"

namespace sluicebox::image {

namespace {

constexpr mode_t kMode = 0666;  // as other files of the user: the umask takes from it

// 128 random bits: a name that nobody else has chosen, whatever the directory holds.
Result<std::string> staging_name() {
  std::array<unsigned char, 16> random = {};
  if (::getrandom(random.data(), random.size(), 0) != static_cast<ssize_t>(random.size())) {
    return os_error(errno, "cannot draw a random file name");
  }
  std::string name = ".sluicebox-";
  for (const unsigned char byte : random) {
    name += "0123456789abcdef"[byte >> 4];
    name += "0123456789abcdef"[byte & 15];
  }
  return name + ".tmp";
}

Error exists(const std::string& path) {
  return Error(ErrorCode::kImageExists, printable(path) + " exists").on(path).advise("pass overwrite to replace it");
}

std::string through_proc(int fd) { return "/proc/self/fd/" + std::to_string(fd); }

}  // namespace

Result<NewFile> NewFile::begin(const std::string& path, bool overwrite, OperationContext& context, Staging staging) {
  NewFile made;
  made.path_ = path;
  made.overwrite_ = overwrite;
  Result<FoundFile> found = FoundFile::find(path, NamedBy{.caller = true}, context.policy);
  if (!found.ok() && found.error().code != ErrorCode::kImageNotFound) return std::move(found).error();
  if (found.ok()) {
    if (!overwrite) return exists(path);
    std::unique_ptr<PosixFile> old = TRY(found->open(/*writable=*/false));
    TRY(lock_image(old->fd(), LockMode::kWriter, path));
    made.replaced_ = found->identity();
    made.old_ = std::move(old);
    made.path_ = found->resolved_path();  // the file is replaced, not a symlink to it
  }
  made.name_ = last_part(made.path_);
  const std::string folder = directory_of(made.path_);
  if (made.name_.empty() || made.name_ == "." || made.name_ == "..") {
    return Error(ErrorCode::kInvalidArgument, printable(path) + " does not end in a file name").on(path);
  }
  made.directory_ = UniqueFd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!made.directory_.valid()) return os_error(errno, "cannot open the directory " + printable(folder), folder);
  if (context.policy.restricts_callers() && !context.policy.allows(made.directory_.get())) {
    return Error(ErrorCode::kPathRefused, printable(path) + " lies outside of the allowed directories")
        .on(path)
        .advise("add its directory to allowPaths");
  }
  TRY(made.open_staging(staging));
  UniqueFd second(::fcntl(made.fd_.get(), F_DUPFD_CLOEXEC, 0));
  if (!second.valid()) return os_error(errno, "cannot open " + printable(path), path);
  made.file_ = std::make_unique<PosixFile>(std::move(second), path);
  if (context.wrap_file) made.file_ = context.wrap_file(std::move(made.file_));
  return made;
}

Status NewFile::open_staging(Staging staging) {
  if (staging == Staging::kAnonymous) {
    const int fd = ::openat(directory_.get(), ".", O_TMPFILE | O_RDWR | O_CLOEXEC, kMode);
    if (fd >= 0) {
      fd_ = UniqueFd(fd);
      return {};
    }
    // EISDIR and ENOENT: kernels and file systems that do not know the flag.
    if (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT && errno != EINVAL) {
      return os_error(errno, "cannot create " + printable(path_), path_);
    }
  }
  std::string name = TRY(staging_name());
  fd_ = UniqueFd(::openat(directory_.get(), name.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC | O_NOFOLLOW, kMode));
  if (!fd_.valid()) return os_error(errno, "cannot create " + printable(path_), path_);
  staged_name_ = std::move(name);
  return {};
}

NewFile::~NewFile() {
  if (!staged_name_.empty()) ::unlinkat(directory_.get(), staged_name_.c_str(), 0);
}

Status NewFile::publish(CancelToken& cancel) {
  TRY(file_->sync());
  // fdatasync leaves out what data does not need, such as the mode; a new file is synced whole.
  if (::fsync(fd_.get()) != 0) return os_error(errno, "cannot sync " + printable(path_), path_);
  if (!cancel.try_commit()) return Error(ErrorCode::kCancelled, "the creation was cancelled");
  if (staged_name_.empty()) {
    TRY(link_anonymous());
  }
  if (!staged_name_.empty()) {
    TRY(rename_staged());
  }
  if (::fsync(directory_.get()) != 0) {
    const Error error = os_error(errno, "cannot sync the directory of " + printable(path_), path_);
    if (!replaced_) ::unlinkat(directory_.get(), name_.c_str(), 0);
    return error;
  }
  return {};
}

// Gives an O_TMPFILE its name; to replace a file it needs a name of its own first, for link never replaces.
Status NewFile::link_anonymous() {
  std::string name = overwrite_ ? TRY(staging_name()) : name_;
  const std::string source = through_proc(fd_.get());
  if (::linkat(AT_FDCWD, source.c_str(), directory_.get(), name.c_str(), AT_SYMLINK_FOLLOW) != 0) {
    if (errno == EEXIST) return exists(path_);
    return os_error(errno, "cannot create " + printable(path_), path_);
  }
  if (overwrite_) staged_name_ = std::move(name);
  return {};
}

Status NewFile::rename_staged() {
  const int from = directory_.get();
  int outcome = 0;
  if (overwrite_) {
    outcome = ::renameat(from, staged_name_.c_str(), from, name_.c_str());
  } else {
    outcome = ::renameat2(from, staged_name_.c_str(), from, name_.c_str(), RENAME_NOREPLACE);
    if (outcome != 0 &&
        (errno == EINVAL || errno == ENOSYS)) {  // a file system without the flag: a link never replaces
      outcome = ::linkat(from, staged_name_.c_str(), from, name_.c_str(), 0);
      if (outcome == 0) ::unlinkat(from, staged_name_.c_str(), 0);
    }
  }
  if (outcome != 0) {
    if (errno == EEXIST) return exists(path_);
    return os_error(errno, "cannot create " + printable(path_), path_);
  }
  staged_name_.clear();
  return {};
}

}  // namespace sluicebox::image
