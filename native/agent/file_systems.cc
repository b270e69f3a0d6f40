#include "agent/file_systems.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <mntent.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "base/unique_fd.h"

namespace sluicebox::agent {

namespace {

// Those that are frozen now: kept open, for a name may not lead there any more.
std::vector<UniqueFd>& frozen() {
  static std::vector<UniqueFd> list;
  return list;
}

std::vector<std::string> places_on_disks() {
  std::vector<std::string> places;
  const std::unique_ptr<FILE, int (*)(FILE*)> table(::setmntent("/proc/self/mounts", "r"), ::endmntent);
  if (!table) return places;
  while (const mntent* mount = ::getmntent(table.get())) {
    const bool on_disk = std::string(mount->mnt_fsname).starts_with("/dev/");
    if (on_disk && ::hasmntopt(mount, MNTOPT_RO) == nullptr) places.emplace_back(mount->mnt_dir);
  }
  return places;
}

}  // namespace

int freeze_file_systems() {
  for (const std::string& place : places_on_disks()) {
    UniqueFd root(::open(place.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!root.valid()) continue;  // over a file, or out of sight: its file system has a root elsewhere
    if (::ioctl(root.get(), FIFREEZE, 0) == 0) {
      frozen().push_back(std::move(root));
    } else if (errno != EBUSY && errno != EOPNOTSUPP) {  // frozen by its other name; nothing that can be frozen
      const int failed = errno;
      thaw_file_systems();
      return failed;
    }
  }
  return 0;
}

void thaw_file_systems() {
  for (const UniqueFd& root : frozen()) ::ioctl(root.get(), FITHAW, 0);
  frozen().clear();
}

}  // namespace sluicebox::agent
