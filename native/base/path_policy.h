// path_policy.h: which files a path found inside an image (or given by a caller) may lead to.
// Knows: directories, open descriptors. Does not know: images. Decides on what was opened, never on the text of a path.
// Threads: immutable after construction, any thread.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace sluicebox {

class PathPolicy {
 public:
  // Directories that may be reached in addition to what a call names; "/" trusts every path. Each is resolved now
  // (symlinks and all), a missing one is kept and matches nothing. `restrict_callers`: paths named by callers must lie
  // inside as well.
  PathPolicy(std::vector<std::string> directories, bool restrict_callers);

  bool restricts_callers() const { return restrict_callers_; }
  // `fd` (O_PATH will do) is open on a file that lies in one of the directories, or in one of `also` (absolute,
  // resolved).
  bool allows(int fd, const std::vector<std::string>& also = {}) const;

 private:
  std::vector<std::string> directories_;
  bool restrict_callers_;
};

// The absolute path of what `fd` is open on, by /proc/self/fd; an error for a deleted or unreachable file.
Result<std::string> path_of_fd(int fd);

}  // namespace sluicebox
