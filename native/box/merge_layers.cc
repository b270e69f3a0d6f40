#include "box/merge_layers.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <set>
#include <string>

#include "base/progress.h"
#include "box/disks.h"
#include "box/rebase_box.h"
#include "box/snapshots.h"
#include "image/open_file.h"
#include "image/ops/commit.h"
#include "image/ops/info.h"

namespace sluicebox::box {

namespace {

// A quarter of what a disk may have: a box that is cloned again and again copies what it wrote since once in so many.
constexpr std::size_t kMany = 16;

std::size_t count_spare(const DiskRecord& disk, int directory, const std::set<std::string>& of_snapshots) {
  if (disk.overlay.empty() || disk.next_bases) return 0;
  std::size_t count = 0;
  for (const FileFacts& each : disk.bases) {
    if (!is_own_layer(directory, each) || of_snapshots.contains(image::last_part(each.path))) break;
    ++count;
  }
  return count;
}

bool has_no_other_link(int directory, const std::string& name) {
  struct stat facts{};
  return ::fstatat(directory, name.c_str(), &facts, AT_SYMLINK_NOFOLLOW) == 0 && facts.st_nlink == 1;
}

// Onto the base at that place (not the first) of the overlay's own chain: what lies above it comes up into the overlay.
Result<image::RebaseOptions> onto(const DiskRecord& disk, std::size_t place, image::OperationContext& context) {
  // As the layer above it names it, which lies beside the overlay.
  const image::ImageInfo above = TRY(
      image::image_info(disk.bases[place - 1].path, {.format = image::DiskFormat::kQcow2, .shared = true}, context));
  image::RebaseOptions options;
  if (!above.backing) return options;
  options.backing = above.backing->path;
  options.backing_format = image::format_from_name(above.backing->format.value_or(""));
  return options;
}

class DiskMerge {
 public:
  DiskMerge(const std::shared_ptr<Box>& box, std::size_t disk, int directory, image::OperationContext& context)
      : box_(box), disk_(disk), directory_(directory), context_(context) {}

  Status run(std::size_t spare) {
    if (spare > 1) TRY(lift(spare - 1));
    const std::string under = image::last_part(record().bases.front().path);
    const bool sinks =
        has_no_other_link(directory_, under) && space_of(directory_, record().overlay) <= space_of(directory_, under);
    return sinks ? sink(under) : lift(1);
  }

 private:
  DiskRecord record() const { return box_->record().disks[disk_]; }

  Status lift(std::size_t place) {
    const image::RebaseOptions options = TRY(onto(record(), place, context_));
    TRY(rebase_standing(box_, disk_, options, context_));
    return ok_status();
  }

  // What the overlay holds goes down into the layer under it, which takes its place.
  Status sink(const std::string& under) {
    const BoxRecord whole = box_->record();
    const DiskRecord& disk = whole.disks[disk_];
    const std::string path = disk_path(whole, disk_, box_->home().path_of(whole.id));
    const image::CommitOptions options{
        .format = image::DiskFormat::kQcow2, .overlay = image::Committed::kLeft, .known = bases_of(disk)};
    TRY(image::commit_image(path, options, context_));
    TRY(box_->update([&](BoxRecord& record) {
      record.disks[disk_].overlay = under;
      record.disks[disk_].bases.erase(record.disks[disk_].bases.begin());
    }));
    ::unlinkat(directory_, disk.overlay.c_str(), 0);
    return ok_status();
  }

  const std::shared_ptr<Box>& box_;
  const std::size_t disk_;
  const int directory_;
  image::OperationContext& context_;
};

// Nobody waits for these bytes to be counted.
image::OperationContext silenced(const image::OperationContext& context, ProgressSink& silent) {
  image::OperationContext quiet{.policy = context.policy, .cancel = context.cancel, .progress = silent};
  quiet.chain_depth = image::kMaxOwnChainDepth;
  return quiet;
}

}  // namespace

Status merge_layers(const std::shared_ptr<Box>& box, image::OperationContext& context) {
  NoProgress silent;
  const UniqueFd directory = TRY(box->home().directory(box->record().id));
  const std::set<std::string> of_snapshots = TRY(layers_of_snapshots(directory.get()));
  for (std::size_t i = 0; i < box->record().disks.size(); ++i) {
    const std::size_t spare = count_spare(box->record().disks[i], directory.get(), of_snapshots);
    image::OperationContext quiet = silenced(context, silent);
    if (spare > 0) TRY(DiskMerge(box, i, directory.get(), quiet).run(spare));
  }
  return ok_status();
}

Status merge_when_many(const std::shared_ptr<Box>& box, Reactor& reactor, const IsHeld& held,
                       image::OperationContext& context) {
  NoProgress silent;
  const UniqueFd directory = TRY(box->home().directory(box->record().id));
  const std::set<std::string> of_snapshots = TRY(layers_of_snapshots(directory.get()));
  for (std::size_t i = 0; i < box->record().disks.size(); ++i) {
    const DiskRecord disk = box->record().disks[i];
    const std::size_t spare = count_spare(disk, directory.get(), of_snapshots);
    if (spare < kMany) continue;
    image::OperationContext quiet = silenced(context, silent);
    // The lowest is the largest, and stays.
    const image::RebaseOptions options = TRY(onto(disk, spare - 1, quiet));
    TRY(rebase_box(box, reactor, i, options, held, quiet));
  }
  return ok_status();
}

}  // namespace sluicebox::box
