#include "walls/mount.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "walls/failure.h"

namespace sluicebox::walls {

const std::uint64_t kNoSuidNoDev = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
const std::uint64_t kReadOnly = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;

namespace {

// openat2 has no wrapper in the C library.
int open_in(int root, const char* path, std::uint64_t flags, std::uint64_t mode = 0) {
  open_how how{};
  how.flags = flags | O_CLOEXEC;
  how.mode = mode;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS;
  return static_cast<int>(::syscall(SYS_openat2, root, path, &how, sizeof how));
}

Error no_place(int saved_errno, const char* path) {
  Error error = failure(saved_errno, "make a place to mount on in the box", path);
  if (saved_errno == ELOOP) error.hint = "the root file system has a symbolic link there, or on the way";
  return error;
}

}  // namespace

Result<UniqueFd> new_filesystem(const char* type, std::span<const MountOption> options, std::uint64_t attributes) {
  const std::string step = std::string("make a file system of type ") + type;
  const UniqueFd context(::fsopen(type, FSOPEN_CLOEXEC));
  if (!context.valid()) return failure(errno, step);
  for (const MountOption& option : options) {
    const auto command = option.value.empty() ? FSCONFIG_SET_FLAG : FSCONFIG_SET_STRING;
    if (::fsconfig(context.get(), command, option.key, option.value.empty() ? nullptr : option.value.c_str(), 0) != 0)
      return failure(errno, step + " with " + option.key);
  }
  if (::fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) return failure(errno, step);
  UniqueFd mount(::fsmount(context.get(), FSMOUNT_CLOEXEC, static_cast<unsigned>(attributes)));
  if (!mount.valid()) return failure(errno, step);
  return mount;
}

Result<UniqueFd> clone_tree(int directory, const char* path, std::uint64_t attributes, Depth depth) {
  const unsigned all = depth == Depth::kAll ? AT_RECURSIVE : 0;
  const unsigned self = *path == '\0' ? AT_EMPTY_PATH : 0;
  UniqueFd tree(::open_tree(directory, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | all | self));
  if (!tree.valid()) return failure(errno, "take a part of the host's file system", path);
  mount_attr change{};
  change.attr_set = attributes;
  change.propagation = MS_PRIVATE;
  if (::mount_setattr(tree.get(), "", AT_EMPTY_PATH | all, &change, sizeof change) != 0)
    return failure(errno, "wall off a part of the host's file system", path);
  return tree;
}

Result<UniqueFd> directory_in(int root, const char* path, unsigned mode) {
  UniqueFd place(open_in(root, path, O_PATH | O_DIRECTORY));
  if (place.valid()) return place;
  if (errno != ENOENT) return no_place(errno, path);
  // mkdirat follows links on the way; the directory above is resolved without them first.
  const std::string whole = path;
  const std::size_t cut = whole.rfind('/');
  UniqueFd above;
  if (cut != std::string::npos) above = TRY(directory_in(root, whole.substr(0, cut).c_str()));
  const int parent = above.valid() ? above.get() : root;
  const std::string name = cut == std::string::npos ? whole : whole.substr(cut + 1);
  if (::mkdirat(parent, name.c_str(), mode) != 0 && errno != EEXIST) return no_place(errno, path);
  place = UniqueFd(open_in(parent, name.c_str(), O_PATH | O_DIRECTORY));
  if (!place.valid()) return no_place(errno, path);
  return place;
}

Result<UniqueFd> file_in(int root, const char* path) {
  UniqueFd place(open_in(root, path, O_CREAT | O_RDONLY | O_NONBLOCK | O_NOCTTY, 0644));
  if (!place.valid()) return no_place(errno, path);
  return place;
}

Status attach(int tree, int place) {
  if (::move_mount(tree, "", place, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) != 0)
    return failure(errno, "mount in the box");
  return ok_status();
}

Status attach(int tree, const Result<UniqueFd>& place) {
  if (!place.ok()) return place.error();
  return attach(tree, place.value().get());
}

Status map_ids(int tree, int user_namespace) {
  mount_attr change{};
  change.attr_set = MOUNT_ATTR_IDMAP;
  change.userns_fd = static_cast<std::uint64_t>(user_namespace);
  if (::mount_setattr(tree, "", AT_EMPTY_PATH, &change, sizeof change) != 0)
    return failure(errno, "map the ids of a file system to those of the box");
  return ok_status();
}

}  // namespace sluicebox::walls
