// sealed_program.h: a program in memory that nobody can change any more: what a box's PID 1 is run from.
// Knows: memfd. Threads: any.
#pragma once

#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace sluicebox::box {

// A copy of the file's bytes, sealed against writes; to be run by execveat.
Result<UniqueFd> seal_program(const std::string& path);

}  // namespace sluicebox::box
