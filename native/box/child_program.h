// child_program.h: a program of the host's, run to its end: what it printed, how it ended.
// Knows: processes. Does not know: what the program is for.
// Threads: a worker's, which waits.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/cancel.h"
#include "base/result.h"

namespace sluicebox::box {

struct ChildProgram {
  std::string path;
  std::vector<std::string> arguments;
  int passed = -1;  // a descriptor that it has as its 3
};
struct ChildEnd {
  int exit_code = -1;  // negative: a signal ended it
  std::string output;  // the end of its stdout
  std::string words;   // of its stderr, in one line
};

// Nothing of the host's environment goes to it. It is killed when the operation is cancelled: kCancelled.
// `while_it_runs` is called some times a second.
Result<ChildEnd> run_program(const ChildProgram& program, const CancelToken& cancel,
                             const std::function<void()>& while_it_runs = {});

}  // namespace sluicebox::box
