#include "walls/devices.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "walls/failure.h"
#include "walls/mount.h"

namespace sluicebox::walls {

namespace {

constexpr const char* kNodes[] = {"null", "zero", "full", "random", "urandom", "tty"};

struct Link {
  const char* name;
  const char* target;
};
constexpr Link kLinks[] = {{"ptmx", "pts/ptmx"},
                           {"fd", "/proc/self/fd"},
                           {"stdin", "/proc/self/fd/0"},
                           {"stdout", "/proc/self/fd/1"},
                           {"stderr", "/proc/self/fd/2"}};

}  // namespace

Status make_devices(int root, int shm) {
  const MountOption bounds[] = {{"size", "65536"}, {"nr_inodes", "64"}, {"mode", "755"}};
  const UniqueFd dev = TRY(new_filesystem("tmpfs", bounds, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC));
  TRY(attach(dev.get(), directory_in(root, "dev")));
  const UniqueFd host(::open("/dev", O_PATH | O_DIRECTORY | O_CLOEXEC));
  for (const char* name : kNodes) {
    // The host's nodes: a user may make none, and a file system of a user namespace opens none.
    const UniqueFd node = TRY(clone_tree(host.get(), name, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, Depth::kOne));
    TRY(attach(node.get(), file_in(dev.get(), name)));
  }
  for (const Link& link : kLinks)
    if (::symlinkat(link.target, dev.get(), link.name) != 0) return failure(errno, "make a link in /dev", link.name);

  const MountOption options[] = {{"newinstance", ""}, {"ptmxmode", "0666"}, {"mode", "0620"}, {"max", "1024"}};
  const UniqueFd pts = TRY(new_filesystem("devpts", options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC));
  TRY(attach(pts.get(), directory_in(dev.get(), "pts")));
  return attach(shm, directory_in(dev.get(), "shm"));
}

}  // namespace sluicebox::walls
