// removal.h: takes away what a box left on disk and in the cgroup file system, and nothing else.
// Knows: files. Threads: any.
#pragma once

#include <string>

#include "base/result.h"

namespace sluicebox::box {

// `name` below `parent` and everything in it. A link is removed, not followed; another file system that is mounted in
// it is left, and the removal fails with EXDEV.
Status remove_tree(int parent, const std::string& name);
// The directories that the file `cgroups` in `box` names, if they bear this id; processes that are left in them are
// killed first.
Status remove_cgroups(int box, const std::string& id);

}  // namespace sluicebox::box
