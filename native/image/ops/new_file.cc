#include "image/ops/new_file.h"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>

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

// Best effort but for the mode, which decides in the end: not every attribute may be set by everybody.
void copy_attributes(int from, int to) {
  std::string names(64 << 10, '\0');
  const ssize_t length = ::flistxattr(from, names.data(), names.size());
  std::string value(64 << 10, '\0');
  for (ssize_t at = 0; at < length;) {
    const char* name = names.data() + at;
    const ssize_t bytes = ::fgetxattr(from, name, value.data(), value.size());
    if (bytes >= 0) (void)::fsetxattr(to, name, value.data(), static_cast<std::size_t>(bytes), 0);
    at += static_cast<ssize_t>(std::strlen(name)) + 1;
  }
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
    if (!found->is_regular()) {
      return Error(ErrorCode::kUnsupported, printable(path) + " is a block device, which is not replaced by a file")
          .on(path)
          .advise("convert into it with existing: true, if all that it holds may go");
    }
    std::unique_ptr<PosixFile> old = TRY(found->open(/*writable=*/false));
    TRY(lock_image(old->fd(), LockMode::kWriter, path));
    made.replaced_ = found->identity();
    made.old_fd_ = old->fd();
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
  // Nobody else reads a new file before it has the rights of the old one.
  const mode_t mode = replaced_ ? S_IRUSR | S_IWUSR : kMode;
  if (staging == Staging::kAnonymous) {
    const int fd = ::openat(directory_.get(), ".", O_TMPFILE | O_RDWR | O_CLOEXEC, mode);
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
  fd_ = UniqueFd(::openat(directory_.get(), name.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC | O_NOFOLLOW, mode));
  if (!fd_.valid()) return os_error(errno, "cannot create " + printable(path_), path_);
  staged_name_ = std::move(name);
  return {};
}

NewFile::~NewFile() {
  if (!staged_name_.empty()) ::unlinkat(directory_.get(), staged_name_.c_str(), 0);
  if (!aside_name_.empty()) ::unlinkat(directory_.get(), aside_name_.c_str(), 0);
}

void NewFile::retract() {
  if (!published_) return;
  published_ = false;
  if (aside_name_.empty()) {
    ::unlinkat(directory_.get(), name_.c_str(), 0);
  } else if (::renameat(directory_.get(), aside_name_.c_str(), directory_.get(), name_.c_str()) == 0) {
    aside_name_.clear();
  }
  (void)::fsync(directory_.get());
}

Status NewFile::publish(CancelToken& cancel) {
  TRY(file_->sync());
  if (replaced_) TRY(keep_rights());
  // fdatasync leaves out what data does not need, such as the mode; a new file is synced whole.
  if (::fsync(fd_.get()) != 0) return os_error(errno, "cannot sync " + printable(path_), path_);
  if (!cancel.try_commit()) return Error(ErrorCode::kCancelled, "the creation was cancelled");
  if (staged_name_.empty()) {
    TRY(link_anonymous());
  }
  if (!staged_name_.empty()) {
    TRY(rename_staged());
  }
  published_ = true;
  if (::fsync(directory_.get()) != 0) {
    const Error error = os_error(errno, "cannot sync the directory of " + printable(path_), path_);
    if (!replaced_) ::unlinkat(directory_.get(), name_.c_str(), 0);
    return error;
  }
  return {};
}

// Gives an O_TMPFILE its name; to replace a file it needs a name of its own first, for link never replaces.
Status NewFile::link_anonymous() {
  std::string name = replaced_ ? TRY(staging_name()) : name_;
  const std::string source = through_proc(fd_.get());
  if (::linkat(AT_FDCWD, source.c_str(), directory_.get(), name.c_str(), AT_SYMLINK_FOLLOW) != 0) {
    if (errno == EEXIST) return appeared();
    return os_error(errno, "cannot create " + printable(path_), path_);
  }
  if (replaced_) staged_name_ = std::move(name);
  return {};
}

// What the path leads to by now is not the file that was locked, or there was none.
Error NewFile::appeared() const {
  if (!overwrite_) return exists(path_);
  return Error(ErrorCode::kImageLocked, printable(path_) + " was replaced by another file meanwhile")
      .on(path_)
      .advise("try again when nobody else writes it");
}

// Owner, access lists and mode of the file that is replaced, in this order: each may take from the next.
Status NewFile::keep_rights() {
  struct stat old = {};
  if (::fstat(old_fd_, &old) != 0) return os_error(errno, "cannot examine " + printable(path_), path_);
  if (::fchown(fd_.get(), old.st_uid, old.st_gid) != 0) {
    return os_error(errno, "cannot keep the owner of " + printable(path_), path_);
  }
  copy_attributes(old_fd_, fd_.get());
  if (::fchmod(fd_.get(), old.st_mode & 07777) != 0) {
    return os_error(errno, "cannot keep the mode of " + printable(path_), path_);
  }
  if (::fsync(fd_.get()) != 0) return os_error(errno, "cannot sync " + printable(path_), path_);
  return {};
}

Status NewFile::rename_staged() {
  TRY(replaced_ ? exchange() : name_staged());
  staged_name_.clear();
  return {};
}

Status NewFile::name_staged() {
  const int from = directory_.get();
  int outcome = ::renameat2(from, staged_name_.c_str(), from, name_.c_str(), RENAME_NOREPLACE);
  if (outcome != 0 && (errno == EINVAL || errno == ENOSYS)) {  // without the flag: a link never replaces
    outcome = ::linkat(from, staged_name_.c_str(), from, name_.c_str(), 0);
    if (outcome == 0) ::unlinkat(from, staged_name_.c_str(), 0);
  }
  if (outcome == 0) return {};
  if (errno == EEXIST) return appeared();
  return os_error(errno, "cannot create " + printable(path_), path_);
}

// Both files keep a name until it is seen that what comes out is the one that was locked: nobody else's is lost.
Status NewFile::exchange() {
  const int from = directory_.get();
  const auto swap = [&] { return ::renameat2(from, staged_name_.c_str(), from, name_.c_str(), RENAME_EXCHANGE) == 0; };
  const auto is_old = [&](const std::string& name) {
    struct stat status = {};
    return ::fstatat(from, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0 &&
           FileIdentity{.device = status.st_dev, .inode = status.st_ino} == *replaced_;
  };
  if (swap()) {
    if (!is_old(staged_name_)) {
      swap();
      return appeared();
    }
    if (keeps_replaced_) {
      aside_name_ = staged_name_;
    } else {
      ::unlinkat(from, staged_name_.c_str(), 0);
    }
    return {};
  }
  if (errno == ENOENT) return name_staged();  // the old one went away by itself
  if (errno != EINVAL && errno != ENOSYS) return os_error(errno, "cannot create " + printable(path_), path_);
  // A file system that cannot exchange: looked at just before.
  if (!is_old(name_)) return appeared();
  if (keeps_replaced_) {
    std::string aside = TRY(staging_name());
    if (::linkat(from, name_.c_str(), from, aside.c_str(), 0) != 0) {
      return os_error(errno, "cannot keep the old " + printable(path_) + " until the new one is there", path_);
    }
    aside_name_ = std::move(aside);
  }
  if (::renameat(from, staged_name_.c_str(), from, name_.c_str()) == 0) return {};
  return os_error(errno, "cannot create " + printable(path_), path_);
}

}  // namespace sluicebox::image
