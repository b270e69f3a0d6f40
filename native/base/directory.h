// directory.h: directories: the one owner of one that is being read, and those above a path.
// Knows: closedir(3), mkdir(2). Threads: any; what is open is owned by one thread at a time.
#pragma once

#include <dirent.h>

#include <memory>
#include <string>

#include "base/result.h"

namespace sluicebox {

struct CloseDirectory {
  void operator()(DIR* directory) const { ::closedir(directory); }
};
using UniqueDirectory = std::unique_ptr<DIR, CloseDirectory>;

// Each directory above the path that is not there, 0755.
Status make_parents(const std::string& path);

}  // namespace sluicebox
