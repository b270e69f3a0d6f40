#include "base/result.h"

#include <cerrno>
#include <cstring>

namespace sluicebox {

namespace {

ErrorCode code_of(int saved_errno) {
  switch (saved_errno) {
    case EACCES:
    case EPERM:
    case EROFS:
      return ErrorCode::kPermission;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return ErrorCode::kNoSpace;
    case ENOENT:
    case ENOTDIR:
      return ErrorCode::kImageNotFound;
    case EEXIST:
      return ErrorCode::kImageExists;
    case ENOMEM:
      return ErrorCode::kOutOfMemory;
    default:
      return ErrorCode::kIo;
  }
}

}  // namespace

Error os_error(int saved_errno, std::string what, std::string path) {
  char buffer[128];
  // The GNU variant: returns the text, which need not be in the buffer; safe from any thread.
  const char* reason = strerror_r(saved_errno, buffer, sizeof buffer);
  Error error(code_of(saved_errno), std::move(what) + ": " + reason);
  error.os_error = saved_errno;
  error.path = std::move(path);
  if (saved_errno == EMFILE) error.hint = "raise the limit of this process's open files (ulimit -n)";
  return error;
}

}  // namespace sluicebox
