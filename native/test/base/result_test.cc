#include "base/result.h"

#include <doctest/doctest.h>

#include <cerrno>
#include <memory>

namespace sluicebox {
namespace {

Result<std::unique_ptr<int>> make(bool good) {
  if (!good) return Error(ErrorCode::kIo, "no");
  return std::make_unique<int>(7);
}

Result<int> twice(bool good) {
  auto value = TRY(make(good));
  TRY(ok_status());
  return *value * 2;
}

}  // namespace

TEST_CASE("TRY moves the value out or returns the error") {
  CHECK(twice(true).value() == 14);
  CHECK(twice(false).error().code == ErrorCode::kIo);
}

TEST_CASE("an errno becomes the code that callers tell apart, and keeps its number") {
  const Error error = os_error(ENOSPC, "cannot write", "/x");
  CHECK(error.code == ErrorCode::kNoSpace);
  CHECK(error.os_error == ENOSPC);
  CHECK(error.message == "cannot write: No space left on device");
  CHECK(os_error(EACCES, "x").code == ErrorCode::kPermission);
  CHECK(os_error(ENOENT, "x").code == ErrorCode::kImageNotFound);
  CHECK(os_error(EIO, "x").code == ErrorCode::kIo);
}

}  // namespace sluicebox
