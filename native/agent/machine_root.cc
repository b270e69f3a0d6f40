#include "agent/machine_root.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <string_view>

#include "agent/console.h"
#include "agent/loop.h"
#include "agent/small_file.h"
#include "agent/step.h"
#include "base/directory.h"

namespace sluicebox::agent {

namespace {

// For a disk whose driver is still at work. Only a disk that is not there at all is waited for that long.
constexpr std::uint64_t kDiskWaitMs = 3000;

constexpr const char* kNewRoot = "/root-disk";
constexpr const char* kLower = "/root-lower";
constexpr const char* kLayer = "/root-layer";

constexpr unsigned long kNoPrograms = MS_NOSUID | MS_NODEV | MS_NOEXEC;

struct MountRow {
  const char* type;
  const char* place;
  unsigned long flags;
  const char* options;
};
constexpr MountRow kBasics[] = {
    {"devtmpfs", "/dev", MS_NOSUID, "mode=0755"},
    {"proc", "/proc", kNoPrograms, nullptr},
    {"sysfs", "/sys", kNoPrograms, nullptr},
};
constexpr MountRow kOthers[] = {
    {"devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"},
    {"tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777"},
    {"tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=0755"},
};
constexpr MountRow kTmp = {"tmpfs", "/tmp", MS_NOSUID | MS_NODEV, "mode=1777"};
constexpr MountRow kControlGroups = {"cgroup2", "/sys/fs/cgroup", kNoPrograms, nullptr};

struct DirectoryRow {
  const char* path;
  mode_t mode;
};
constexpr DirectoryRow kDirectories[] = {
    // Not readable by others: what root keeps there is nobody else's business.
    {"/root", 0700}, {"/home", 0755}, {"/mnt", 0755}, {"/etc", 0755}, {"/var", 0755},
};
constexpr const char* kOpenToAll[] = {"/tmp", "/var/tmp"};

struct LinkRow {
  const char* target;
  const char* path;
};
constexpr LinkRow kLinks[] = {
    {"/proc/self/fd", "/dev/fd"},
    {"/proc/self/fd/0", "/dev/stdin"},
    {"/proc/self/fd/1", "/dev/stdout"},
    {"/proc/self/fd/2", "/dev/stderr"},
};

// The place is made where it is missing and can be.
Status mount_row(const MountRow& row) {
  ::mkdir(row.place, 0755);
  if (::mount(row.type, row.place, row.type, row.flags, row.options) != 0)
    return stopped(errno, std::string("mount ") + row.place);
  return ok_status();
}

// ---------- the disk ----------

// The block device whose serial number that is, or nothing.
std::string disk_named(std::string_view serial) {
  const UniqueDirectory blocks(::opendir("/sys/block"));
  if (!blocks) return {};
  while (const dirent* entry = ::readdir(blocks.get())) {
    const std::string name = entry->d_name;
    if (!name.starts_with("vd")) continue;
    std::string found = read_small("/sys/block/" + name + "/serial").value_or("");
    if (found.ends_with('\n')) found.pop_back();
    if (found == serial) return "/dev/" + name;
  }
  return {};
}

Result<std::string> wait_for_disk(const protocol::Machine& machine) {
  const Nanoseconds deadline = deadline_after(kDiskWaitMs);
  while (true) {
    std::string path = disk_named(machine.root_serial);
    if (!path.empty()) {
      if (machine.root_partition != 0) path += std::to_string(machine.root_partition);
      if (::access(path.c_str(), F_OK) == 0) return path;
    }
    if (monotonic_now() > deadline)
      return stopped(ENODEV, path.empty() ? "find the disk of the root file system"
                                          : "find the partition of the root file system");
    ::usleep(1000);
  }
}

Status mount_disk(const std::string& disk, protocol::FileSystem file_system, bool readonly, const char* place) {
  ::mkdir(place, 0755);
  unsigned long flags = MS_NOATIME;
  if (readonly) flags |= MS_RDONLY;
  if (file_system == protocol::FileSystem::kErofs) {
    if (::mount(disk.c_str(), place, "erofs", flags, nullptr) == 0) return ok_status();
    return stopped(errno, "mount the root file system (erofs)");
  }
  if (::mount(disk.c_str(), place, "ext4", flags, nullptr) == 0) return ok_status();
  // Nobody may write to the disk, and its journal is not empty: what only that holds stays unseen.
  if (readonly && errno == EROFS && ::mount(disk.c_str(), place, "ext4", flags, "noload") == 0) {
    tell("the journal of the root file system is not empty and cannot be replayed: the disk is read-only");
    return ok_status();
  }
  return stopped(errno, "mount the root file system (ext4)");
}

// Over what is at kLower.
Status mount_layer(std::uint64_t bytes) {
  ::mkdir(kLayer, 0700);
  const std::string size = bytes == 0 ? "mode=0755" : "mode=0755,size=" + std::to_string(bytes);
  if (::mount("tmpfs", kLayer, "tmpfs", MS_NOATIME, size.c_str()) != 0)
    return stopped(errno, "mount the private layer");
  const std::string upper = std::string(kLayer) + "/upper";
  const std::string work = std::string(kLayer) + "/work";
  if (::mkdir(upper.c_str(), 0755) != 0 || ::mkdir(work.c_str(), 0700) != 0)
    return stopped(errno, "make the private layer");
  const std::string options = std::string("lowerdir=") + kLower + ",upperdir=" + upper + ",workdir=" + work;
  if (::mount("overlay", kNewRoot, "overlay", MS_NOATIME, options.c_str()) != 0)
    return stopped(errno, "mount the overlay of the root file system");
  // The overlay holds both by itself: nothing else is to show them.
  ::umount2(kLower, MNT_DETACH);
  ::umount2(kLayer, MNT_DETACH);
  return ok_status();
}

Status mount_root(const protocol::Machine& machine) {
  const std::string disk = TRY(wait_for_disk(machine));
  const bool readonly = machine.root_readonly || machine.file_system == protocol::FileSystem::kErofs;
  ::mkdir(kNewRoot, 0755);
  TRY(mount_disk(disk, machine.file_system, readonly, readonly ? kLower : kNewRoot));
  return readonly ? mount_layer(machine.layer_bytes) : ok_status();
}

// ---------- the initrd ----------

// Its files are memory of the machine.
void free_initrd() {
  if (const UniqueDirectory modules{::opendir("/modules")}; modules) {
    while (const dirent* entry = ::readdir(modules.get())) ::unlink((std::string("/modules/") + entry->d_name).c_str());
  }
  ::rmdir("/modules");
  ::unlink("/init");
}

Status switch_root() {
  for (const MountRow& row : kBasics) ::umount2(row.place, MNT_DETACH);
  free_initrd();
  // The first file system of a kernel cannot be taken away, only covered.
  if (::chdir(kNewRoot) != 0 || ::mount(".", "/", nullptr, MS_MOVE, nullptr) != 0 || ::chroot(".") != 0 ||
      ::chdir("/") != 0)
    return stopped(errno, "enter the root file system");
  return ok_status();
}

// What is missing is made where the root can be written; what fails then shows when somebody needs it.
void make_directories() {
  for (const DirectoryRow& row : kDirectories) ::mkdir(row.path, row.mode);
  for (const char* path : kOpenToAll) {
    struct stat status{};
    if (::mkdir(path, 01777) != 0 && (::lstat(path, &status) != 0 || !S_ISDIR(status.st_mode))) continue;
    ::chmod(path, 01777);
  }
}

// All but a sixteenth.
std::uint64_t memory_for_programs() {
  struct sysinfo memory{};
  ::sysinfo(&memory);
  const std::uint64_t all = std::uint64_t{memory.totalram} * memory.mem_unit;
  return all - all / 16;
}

}  // namespace

Status mount_basics() {
  for (const MountRow& row : kBasics) TRY(mount_row(row));
  return ok_status();
}

Status enter_root(const protocol::Machine& machine) {
  if (!machine.root_serial.empty()) {
    TRY(mount_root(machine));
    TRY(switch_root());
    TRY(mount_basics());
  }
  for (const MountRow& row : kOthers) TRY(mount_row(row));
  for (const LinkRow& row : kLinks) {
    if (::symlink(row.target, row.path) != 0 && errno != EEXIST) return stopped(errno, std::string("make ") + row.path);
  }
  make_directories();
  if (::access("/tmp", W_OK) != 0) TRY(mount_row(kTmp));
  return ok_status();
}

Status limit_programs(std::uint64_t processes) {
  const Status mounted = mount_row(kControlGroups);
  const std::string above = kControlGroups.place;
  const std::string group = above + "/box";
  // What the kernel and the agent need when programs have taken all there is. The group's own OOM killer then comes
  // before the machine's memory is spent. Not every kernel can.
  if (write_into(above + "/cgroup.subtree_control", "+memory") == 0 && ::mkdir(group.c_str(), 0755) == 0)
    write_into(group + "/memory.max", std::to_string(memory_for_programs()));
  if (processes == 0) {
    write_into(group + "/cgroup.procs", "0");
    return ok_status();
  }
  TRY(mounted);
  // The agent goes in too, so that a spawn past the limit fails as a fork does: hence one more.
  int failed = write_into(above + "/cgroup.subtree_control", "+pids");
  if (failed == 0 && ::mkdir(group.c_str(), 0755) != 0 && errno != EEXIST) failed = errno;
  if (failed == 0) failed = write_into(group + "/pids.max", std::to_string(processes + 1));
  if (failed == 0) failed = write_into(group + "/cgroup.procs", "0");
  if (failed != 0) return stopped(failed, "limit the number of processes");
  return ok_status();
}

}  // namespace sluicebox::agent
