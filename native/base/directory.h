// directory.h: the one owner of an open directory that is being read.
// Knows: closedir(3). Threads: owned by one thread at a time.
#pragma once

#include <dirent.h>

#include <memory>

namespace sluicebox {

struct CloseDirectory {
  void operator()(DIR* directory) const { ::closedir(directory); }
};
using UniqueDirectory = std::unique_ptr<DIR, CloseDirectory>;

}  // namespace sluicebox
