#include "box/layers.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/progress.h"
#include "image/open_file.h"
#include "image/ops/create.h"

namespace sluicebox::box {

namespace {

// A file of the box's directory, as it is noted of one that is not written any more.
Result<FileFacts> own_facts(int directory, const std::string& folder, const std::string& name) {
  struct stat facts{};
  if (::fstatat(directory, name.c_str(), &facts, AT_SYMLINK_NOFOLLOW) != 0)
    return os_error(errno, "cannot look at a disk's layer", folder + "/" + name);
  return FileFacts{.path = folder + "/" + name,
                   .device = facts.st_dev,
                   .inode = facts.st_ino,
                   .size = static_cast<std::uint64_t>(facts.st_size),
                   .mtime_ns = std::int64_t{facts.st_mtim.tv_sec} * 1'000'000'000 + facts.st_mtim.tv_nsec,
                   .own = true};
}

// It may be there already: two disks can lie on one file.
Status link_layer(int from, int to, const std::string& name) {
  if (::linkat(from, name.c_str(), to, name.c_str(), 0) == 0 || errno == EEXIST) return ok_status();
  return os_error(errno, "cannot link a disk's layer", name);
}

}  // namespace

Result<NewLayer> stack_layer(int directory, const std::string& folder, std::size_t disk, const std::string& overlay,
                             std::uint64_t size, const std::vector<FileFacts>& bases,
                             image::OperationContext& context) {
  NewLayer layer{.name = free_layer_name(directory, disk), .bases = {}, .size = size};
  NoProgress silent;
  CancelToken cancel;  // of its own: it is a step of something larger
  image::OperationContext creation{.policy = context.policy, .cancel = cancel, .progress = silent};
  const image::CreateOptions create{
      .size = size,
      .backing = image::BackingOption{.path = overlay, .format = image::DiskFormat::kQcow2},
      .unchecked_backing = true,
      .format = image::Qcow2Create{}};
  const std::string path = folder + "/" + layer.name;
  TRY(image::create_image(path, create, creation));
  // An image is as open as its maker's umask has it; a file of the home is its owner's alone.
  if (::chmod(path.c_str(), 0600) != 0) return os_error(errno, "cannot close a disk to others", path);
  layer.bases.push_back(TRY(own_facts(directory, folder, overlay)));
  layer.bases.insert(layer.bases.end(), bases.begin(), bases.end());
  return layer;
}

Status copy_disks(const SnapshotRecord& snapshot, const BoxRecord& from, int from_directory, BoxRecord& to,
                  int to_directory, const std::string& to_folder, image::OperationContext& context) {
  to.disks.clear();
  for (std::size_t i = 0; i < snapshot.disks.size() && i < from.disks.size(); ++i) {
    const SnapshotDisk& disk = snapshot.disks[i];
    DiskRecord made{.format = from.disks[i].format, .overlay = {}, .bases = {}, .next_bases = std::nullopt};
    for (const FileFacts& base : disk.bases) {
      if (!is_own(from_directory, base)) {
        made.bases.push_back(base);
        continue;
      }
      const std::string name = image::last_part(base.path);
      TRY(link_layer(from_directory, to_directory, name));
      made.bases.push_back(TRY(own_facts(to_directory, to_folder, name)));
      // A disk that was made from a directory is named by its own file.
      if (to.spec.disks[i].path == base.path) to.spec.disks[i].path = made.bases.back().path;
    }
    if (!disk.overlay.empty()) {
      TRY(link_layer(from_directory, to_directory, disk.overlay));
      NewLayer layer = TRY(stack_layer(to_directory, to_folder, i, disk.overlay, disk.size, made.bases, context));
      made.overlay = std::move(layer.name);
      made.bases = std::move(layer.bases);
    }
    to.disks.push_back(std::move(made));
  }
  return ok_status();
}

Result<std::vector<DiskRecord>> restore_disks(const SnapshotRecord& snapshot, const BoxRecord& record, int directory,
                                              const std::string& folder, image::OperationContext& context) {
  std::vector<DiskRecord> disks = record.disks;
  for (std::size_t i = 0; i < snapshot.disks.size() && i < disks.size(); ++i) {
    const SnapshotDisk& disk = snapshot.disks[i];
    if (disk.overlay.empty()) continue;
    NewLayer layer = TRY(stack_layer(directory, folder, i, disk.overlay, disk.size, disk.bases, context));
    disks[i].overlay = std::move(layer.name);
    disks[i].bases = std::move(layer.bases);
    disks[i].next_bases.reset();
  }
  return disks;
}

}  // namespace sluicebox::box
