// result.h: errors as values: Error, Result<T>, Status and the one propagation macro, TRY.
// Knows: error codes. Nothing here throws; a wrong access aborts.
// Threads: a value like any other, owned by one thread at a time.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "base/error_code.h"

namespace sluicebox {

// What failed, on what, why, and what to do. The message is one sentence without a final stop.
struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;
  int os_error = 0;                     // errno, when the operating system said no
  std::string path;                     // the file concerned, as the caller or the image named it
  std::optional<std::uint64_t> offset;  // where in that file, in bytes
  std::string hint;                     // what the caller can do about it
  std::string phase;                    // how far it had come, where that is not plain from the operation
  std::string output;                   // the last that a program which failed had said

  Error(ErrorCode error_code, std::string text) : code(error_code), message(std::move(text)) {}

  Error&& at(std::uint64_t byte) && {
    offset = byte;
    return std::move(*this);
  }
  Error&& on(std::string file) && {
    if (path.empty()) path = std::move(file);
    return std::move(*this);
  }
  Error&& advise(std::string text) && {
    hint = std::move(text);
    return std::move(*this);
  }
};

// An Error from errno: EACCES and EPERM are kPermission, ENOSPC and EDQUOT kNoSpace, ENOENT and ENOTDIR
// kImageNotFound, EEXIST kImageExists, ENOMEM kOutOfMemory, all else kIo. `what` reads like "cannot open the image".
Error os_error(int saved_errno, std::string what, std::string path = {});

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}      // NOLINT(google-explicit-constructor)
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT(google-explicit-constructor)

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }

  T& value() & { return checked_value(); }
  const T& value() const& { return const_cast<Result*>(this)->checked_value(); }
  T&& value() && { return std::move(checked_value()); }
  T* operator->() { return &checked_value(); }
  T& operator*() & { return checked_value(); }

  Error& error() & { return checked_error(); }
  const Error& error() const& { return const_cast<Result*>(this)->checked_error(); }
  Error&& error() && { return std::move(checked_error()); }

 private:
  T& checked_value() {
    if (!ok()) std::abort();
    return *std::get_if<0>(&state_);
  }
  Error& checked_error() {
    if (ok()) std::abort();
    return *std::get_if<1>(&state_);
  }
  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)) {}  // NOLINT(google-explicit-constructor)

  bool ok() const { return !error_.has_value(); }
  explicit operator bool() const { return ok(); }
  void value() const {
    if (!ok()) std::abort();
  }
  Error& error() & { return checked_error(); }
  const Error& error() const& { return const_cast<Result*>(this)->checked_error(); }
  Error&& error() && { return std::move(checked_error()); }

 private:
  Error& checked_error() {
    if (ok()) std::abort();
    return *error_;
  }
  std::optional<Error> error_;
};

using Status = Result<void>;
inline Status ok_status() { return {}; }

}  // namespace sluicebox

// `T x = TRY(expression);` or `TRY(expression);`: the value, or return its error from the enclosing function.
#define TRY(...)                                                                    \
  __extension__({                                                                   \
    auto sluicebox_try_result = (__VA_ARGS__);                                      \
    if (!sluicebox_try_result.ok()) return std::move(sluicebox_try_result).error(); \
    std::move(sluicebox_try_result).value();                                        \
  })
