// box_directory.h: the box's own directory as the keeper uses it: its lock, the list of its cgroups, its removal.
// Knows: files. Does not know: records, layers, boxes.
// Threads: the keeper's one.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace sluicebox::keeper {

class BoxDirectory {
 public:
  BoxDirectory() = default;
  // Locked until the keeper ends, however that comes: `lock` is the open file by which its sender holds the lock, so it
  // is free at no moment in between. kInUse: another has it.
  static Result<BoxDirectory> open(UniqueFd directory, UniqueFd lock, std::string id);
  // For a caller who holds the lock by other means.
  static BoxDirectory unlocked(UniqueFd directory, std::string id);

  int get() const { return directory_.get(); }
  // As the host names it now.
  std::string path() const;

  // One a line, before they are made: whoever finds this directory without a keeper can remove them.
  Status record_cgroups(const std::vector<std::string>& cgroups) const;
  // What the keeper put here; the rest stays.
  void forget_own_files() const;
  // Everything in it, and itself. Follows no link and crosses no mount. What stays, and why.
  std::vector<std::string> remove() const;

 private:
  UniqueFd directory_;
  UniqueFd lock_;
  std::string id_;
};

}  // namespace sluicebox::keeper
