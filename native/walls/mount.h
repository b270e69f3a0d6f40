// mount.h: the kernel's mount calls on descriptors, and places in a root that nothing can redirect.
// Knows: mounts. Does not know: what a box shows.
// Threads: the caller's.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace sluicebox::walls {

struct MountOption {
  const char* key;
  std::string value;  // empty: a flag
};

// What a mount that holds no programs or devices gets, as MOUNT_ATTR_* bits.
extern const std::uint64_t kNoSuidNoDev;
extern const std::uint64_t kReadOnly;  // with nosuid and nodev

// A file system of its own, attached nowhere yet.
Result<UniqueFd> new_filesystem(const char* type, std::span<const MountOption> options, std::uint64_t attributes);

// A copy of what is mounted at `path` under `directory` and below, attached nowhere yet: private, so that no later
// mount of the host shows in it, with `attributes` on every mount of it.
enum class Depth { kOne, kAll };
Result<UniqueFd> clone_tree(int directory, const char* path, std::uint64_t attributes, Depth depth);

// The place under `root`, a directory made if it is missing. A link on the way, or in its place, is refused.
Result<UniqueFd> directory_in(int root, const char* path, unsigned mode = 0755);
// The same for an empty file; the directory above it exists.
Result<UniqueFd> file_in(int root, const char* path);

// Onto the very place that the descriptor holds, whatever its name leads to by now.
Status attach(int tree, int place);
Status attach(int tree, const Result<UniqueFd>& place);

// Ids on disk 0 to 65535 are those of the box whose user namespace this is.
Status map_ids(int tree, int user_namespace);

}  // namespace sluicebox::walls
