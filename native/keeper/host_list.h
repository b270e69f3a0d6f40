// host_list.h: what there is in a view of the host: which files tell one state of it from another, and which of them
// not everybody may read.
// Knows: file trees. Does not know: how the view came about, images.
// Threads: one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

namespace sluicebox::keeper {

struct HostList {
  // Of every file's path, kind, mode, size, time and inode; of those that lie on the view's own file system and not on
  // the host's, which are copies, the bytes instead.
  std::string key;
  std::uint64_t bytes = 0;  // that a file system of them takes, not compressed
  // Relative paths: what not every user of the host may read, with all below it, and what is no file, directory or
  // link. A box of namespaces cannot read them either.
  std::vector<std::string> left_out;
};

// The tree at `root`.
Result<HostList> list_host(const std::string& root);

}  // namespace sluicebox::keeper
