#include "walls/layer.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <string>

#include "walls/failure.h"
#include "walls/mount.h"

namespace sluicebox::walls {

namespace {

// Each inode costs the kernel about a KiB that no size= counts.
std::uint64_t inodes_of(std::uint64_t bytes) { return std::clamp<std::uint64_t>(bytes / 4096, 4096, 1 << 20); }

// The place again, as this mount namespace has it: a descriptor from outside cannot be mounted. Its path is looked up,
// and must lead to the very same directory.
Result<UniqueFd> found_again(int place, const char* below, const char* what) {
  char path[PATH_MAX];
  const ssize_t length = ::readlink(("/proc/self/fd/" + std::to_string(place)).c_str(), path, sizeof path - 1);
  if (length < 0) return failure(errno, std::string("find ") + what);
  path[length] = '\0';
  UniqueFd again(::open(path, O_PATH | O_DIRECTORY | O_CLOEXEC));
  struct stat expected{};
  struct stat found{};
  if (!again.valid() || ::fstat(place, &expected) != 0 || ::fstat(again.get(), &found) != 0)
    return failure(errno, std::string("find ") + what, path);
  if (expected.st_dev != found.st_dev || expected.st_ino != found.st_ino)
    return failure(ESTALE, std::string("find ") + what, path).advise("it was moved or replaced meanwhile");
  if (*below == '\0') return again;
  return directory_in(again.get(), below, 0700);
}

}  // namespace

Result<UniqueFd> make_layer(const RootPlan& plan) {
  UniqueFd layer;
  if (!plan.keep) {
    const MountOption options[] = {{"size", std::to_string(plan.storage)},
                                   {"nr_inodes", std::to_string(inodes_of(plan.storage))},
                                   {"mode", "755"}};
    layer = TRY(new_filesystem("tmpfs", options, kNoSuidNoDev));
  } else if (plan.layer_tree.valid()) {
    layer = UniqueFd(::fcntl(plan.layer_tree.get(), F_DUPFD_CLOEXEC, 0));
  } else {
    const UniqueFd place = TRY(found_again(plan.box_place, "layer", "the box's directory"));
    layer = TRY(clone_tree(place.get(), "", kNoSuidNoDev, Depth::kOne));
  }
  // A place that every host has and that nothing here needs. Not "/": what lies over a root must be let go of by a call
  // of its own, and each such call waits for every processor.
  const UniqueFd top(::open("/sys", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!top.valid()) return failure(errno, "find a place for the box's layer", "/sys");
  TRY(attach(layer.get(), top.get()));
  return layer;
}

Status resize_layer(int root, std::uint64_t bytes) {
  const UniqueFd layer(::fspick(root, "", FSPICK_EMPTY_PATH | FSPICK_CLOEXEC));
  const auto set = [&](const char* key, std::uint64_t value) {
    return ::fsconfig(layer.get(), FSCONFIG_SET_STRING, key, std::to_string(value).c_str(), 0) == 0;
  };
  if (!layer.valid() || !set("size", bytes) || !set("nr_inodes", inodes_of(bytes)) ||
      ::fsconfig(layer.get(), FSCONFIG_CMD_RECONFIGURE, nullptr, nullptr, 0) != 0)
    return failure(errno, "bound the box's layer");
  return ok_status();
}

Result<UniqueFd> lower_tree(const RootPlan& plan) {
  if (plan.lower_tree.valid()) return UniqueFd(::fcntl(plan.lower_tree.get(), F_DUPFD_CLOEXEC, 0));
  const UniqueFd place = TRY(found_again(plan.lower_place, "", "the root directory"));
  return clone_tree(place.get(), "", kReadOnly, Depth::kAll);
}

}  // namespace sluicebox::walls
