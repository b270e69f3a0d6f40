#include "walls/masks.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>

#include "walls/failure.h"
#include "walls/mount.h"

namespace sluicebox::walls {

namespace {

constexpr const char* kReadOnlyParts[] = {"sys", "irq", "bus", "fs"};
constexpr const char* kHiddenFiles[] = {"kcore",         "keys",       "key-users",   "kallsyms",    "kmsg",
                                        "sysrq-trigger", "timer_list", "timer_stats", "sched_debug", "latency_stats",
                                        "kpagecount",    "kpageflags", "kpagecgroup"};
constexpr const char* kHiddenDirectories[] = {"acpi", "scsi", "asound"};

Status hide(int proc, const char* name, int flags, Result<UniqueFd> (*cover)()) {
  const UniqueFd place(::openat(proc, name, O_PATH | O_NOFOLLOW | O_CLOEXEC | flags));
  if (!place.valid()) return errno == ENOENT ? ok_status() : Status(failure(errno, "hide a part of /proc", name));
  const UniqueFd tree = TRY(cover());
  return attach(tree.get(), place.get());
}

Result<UniqueFd> null_device() {
  return clone_tree(AT_FDCWD, "/dev/null", MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, Depth::kOne);
}

Result<UniqueFd> empty_directory() {
  const MountOption options[] = {{"size", "4096"}, {"nr_inodes", "1"}, {"mode", "555"}};
  return new_filesystem("tmpfs", options, kReadOnly);
}

}  // namespace

Status make_proc(int root) {
  auto proc = new_filesystem("proc", {}, kNoSuidNoDev | MOUNT_ATTR_NOEXEC);
  if (!proc.ok() && proc.error().os_error == EPERM)
    return unsupported(EPERM, "mount a /proc for the box", "/proc",
                       "the host's own /proc is masked, as in a container: run it with an unmasked /proc, or as root");
  if (!proc.ok()) return std::move(proc).error();
  const int top = proc.value().get();
  TRY(attach(top, directory_in(root, "proc")));
  for (const char* name : kReadOnlyParts) {
    auto tree = clone_tree(top, name, kReadOnly | MOUNT_ATTR_NOEXEC, Depth::kAll);
    if (!tree.ok() && tree.error().os_error == ENOENT) continue;
    if (!tree.ok()) return std::move(tree).error();
    const UniqueFd place(::openat(top, name, O_PATH | O_DIRECTORY | O_CLOEXEC));
    TRY(attach(tree.value().get(), place.get()));
  }
  for (const char* name : kHiddenFiles) TRY(hide(top, name, 0, null_device));
  for (const char* name : kHiddenDirectories) TRY(hide(top, name, O_DIRECTORY, empty_directory));
  return ok_status();
}

}  // namespace sluicebox::walls
