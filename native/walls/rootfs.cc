#include "walls/rootfs.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "walls/failure.h"
#include "walls/host_view.h"
#include "walls/layer.h"
#include "walls/mount.h"

namespace sluicebox::walls {

namespace {

constexpr std::uint64_t kKeptShmBytes = std::uint64_t{64} << 20;

Status make_directories(int root) {
  // Not readable by others: what root keeps there is nobody else's business.
  TRY(directory_in(root, "root", 0700));
  for (const char* name : {"home", "run", "mnt", "proc", "dev", "sys", "etc", "var"}) TRY(directory_in(root, name));
  for (const char* name : {"tmp", "var/tmp"}) {
    const UniqueFd place = TRY(directory_in(root, name));
    // Through /proc: fchmod refuses a descriptor that only names a place.
    const std::string path = "/proc/self/fd/" + std::to_string(place.get());
    if (::chmod(path.c_str(), 01777) != 0) return failure(errno, "open a directory to all", name);
  }
  return ok_status();
}

// A tree that was made in the layer, mounted so that it can become a root: over its own place.
Result<UniqueFd> mount_over_itself(int layer, const char* name) {
  UniqueFd tree = TRY(clone_tree(layer, name, kNoSuidNoDev, Depth::kOne));
  TRY(attach(tree.get(), directory_in(layer, name)));
  return tree;
}

Result<UniqueFd> overlay(int layer, const RootPlan& plan) {
  UniqueFd lower = TRY(lower_tree(plan));
  TRY(attach(lower.get(), directory_in(layer, "lower")));
  const UniqueFd upper = TRY(directory_in(layer, "root"));
  const UniqueFd work = TRY(directory_in(layer, "work", 0700));
  const auto by_number = [](const UniqueFd& fd) { return "/proc/self/fd/" + std::to_string(fd.get()); };
  const MountOption options[] = {
      {"lowerdir", by_number(lower)}, {"upperdir", by_number(upper)}, {"workdir", by_number(work)}, {"userxattr", ""}};
  auto made = new_filesystem("overlay", options, kNoSuidNoDev);
  if (!made.ok() && made.error().os_error == EINVAL && plan.keep)
    return unsupported(EINVAL, "keep the box's layer in its home", {},
                       "the home's file system cannot hold a layer (it may be an overlay itself): choose another home");
  if (!made.ok()) return made;
  TRY(attach(made.value().get(), directory_in(layer, "merged")));
  return made;
}

}  // namespace

Result<NewRoot> build_root(const RootPlan& plan) {
  UniqueFd layer = TRY(make_layer(plan));
  NewRoot made;
  if (plan.keep) {
    const MountOption size[] = {{"size", std::to_string(kKeptShmBytes)}, {"nr_inodes", "4096"}, {"mode", "1777"}};
    made.shm = TRY(new_filesystem("tmpfs", size, kNoSuidNoDev));
  } else {
    TRY(directory_in(layer.get(), "shm"));
    made.shm = TRY(clone_tree(layer.get(), "shm", kNoSuidNoDev, Depth::kOne));
    if (::fchmodat(made.shm.get(), ".", 01777, 0) != 0) return failure(errno, "open /dev/shm to all");
  }
  if (plan.host) {
    TRY(directory_in(layer.get(), "root"));
    made.root = TRY(mount_over_itself(layer.get(), "root"));
    TRY(make_directories(made.root.get()));
    TRY(show_host(made.root.get()));
  } else {
    made.root = TRY(overlay(layer.get(), plan));
    TRY(make_directories(made.root.get()));
  }
  return made;
}

Status enter_root(int root) {
  if (::fchdir(root) != 0) return failure(errno, "enter the box's root");
  // The old root lands over the new one, and is let go of at once: no directory for it is needed.
  if (::syscall(SYS_pivot_root, ".", ".") != 0) return failure(errno, "change to the box's root");
  if (::umount2(".", MNT_DETACH) != 0) return failure(errno, "let go of the host's root");
  if (::chdir("/") != 0) return failure(errno, "enter the box's root");
  return ok_status();
}

Status finish_root(const RootPlan& plan, const RootDetails& details) {
  if (!plan.host) return ok_status();
  const UniqueFd root(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!root.valid()) return failure(errno, "open the box's root");
  if (!plan.keep && details.storage != plan.storage) TRY(resize_layer(root.get(), details.storage));
  return finish_host_view(root.get(), details);
}

}  // namespace sluicebox::walls
