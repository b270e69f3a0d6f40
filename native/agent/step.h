// step.h: what stopped the making of a virtual machine: a step in words, and errno.
// Knows: errors. Threads: values only.
#pragma once

#include <string>

#include "base/result.h"

namespace sluicebox::agent {

// `step` reads like "mount the root file system" and is the whole message: the host says what became of it.
inline Error stopped(int saved_errno, std::string step) {
  Error error(ErrorCode::kIo, std::move(step));
  error.os_error = saved_errno;
  return error;
}

}  // namespace sluicebox::agent
