// answer.h: an error as the owner is told of it.
// Knows: errors, messages. Threads: values only.
#pragma once

#include "base/result.h"
#include "protocol/messages.h"

namespace sluicebox::keeper {

inline protocol::LaunchFailed as_answer(const Error& error) {
  return {static_cast<std::uint32_t>(error.code), static_cast<std::uint32_t>(error.os_error), error.message, error.path,
          error.hint};
}

inline Error as_error(const protocol::LaunchFailed& answer) {
  Error error(static_cast<ErrorCode>(answer.code), answer.message);
  error.os_error = static_cast<int>(answer.os_error);
  error.path = answer.path;
  error.hint = answer.hint;
  return error;
}

}  // namespace sluicebox::keeper
