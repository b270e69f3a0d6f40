#include "walls/failure.h"

#include <cerrno>

namespace sluicebox::walls {

Error failure(int saved_errno, const std::string& step, std::string path) {
  Error error = os_error(saved_errno, "cannot " + step, std::move(path));
  if (error.code != ErrorCode::kNoSpace) error.code = ErrorCode::kBoxStart;
  return error;
}

Error unsupported(int saved_errno, const std::string& step, std::string path, std::string hint) {
  Error error = os_error(saved_errno, "cannot " + step, std::move(path));
  error.code = ErrorCode::kUnsupported;
  error.hint = std::move(hint);
  return error;
}

}  // namespace sluicebox::walls
