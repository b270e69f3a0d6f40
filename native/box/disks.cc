#include "box/disks.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/progress.h"
#include "image/chain.h"
#include "image/ops/create.h"
#include "image/printable.h"

namespace sluicebox::box {

namespace {

using image::Access;
using image::Layer;

struct Chain {
  Layer top;
  std::vector<Layer> below;
};

Result<std::optional<image::DiskFormat>> format_of(const DiskSpec& spec) {
  if (!spec.format) return std::optional<image::DiskFormat>();
  const auto format = image::format_from_name(*spec.format);
  if (format) return format;
  return Error(ErrorCode::kUnsupported, "disks of the format " + *spec.format + " are not built").on(spec.path);
}

int fd_of(const Layer& layer) { return dynamic_cast<const image::PosixFile&>(*layer.file).fd(); }

Result<FileFacts> facts_of(const Layer& layer) {
  // A machine is handed one file a layer, whose format a guest cannot make another.
  const image::DiskFormat format = layer.block->format();
  if (format != image::DiskFormat::kRaw && format != image::DiskFormat::kQcow2) {
    return Error(ErrorCode::kUnsupported, std::string("disks of the format ") + image::format_name(format) +
                                              " are not built for boxes: raw and qcow2 are")
        .on(layer.resolved_path);
  }
  struct stat facts{};
  if (::fstat(fd_of(layer), &facts) != 0) return os_error(errno, "cannot look at a disk", layer.resolved_path);
  return FileFacts{.path = layer.resolved_path,
                   .device = facts.st_dev,
                   .inode = facts.st_ino,
                   .size = static_cast<std::uint64_t>(facts.st_size),
                   .mtime_ns = std::int64_t{facts.st_mtim.tv_sec} * 1'000'000'000 + facts.st_mtim.tv_nsec};
}

Result<Chain> open_chain(const std::string& path, std::optional<image::DiskFormat> format,
                         std::vector<image::FileIdentity> also_named, image::OperationContext& context) {
  Chain chain{.top = TRY(image::open_layer(path, format, Access::kRead, context)), .below = {}};
  chain.below = TRY(image::open_backing_chain(
      {.overlay = &chain.top, .backing = chain.top.block->backing(), .also_named = std::move(also_named)}, context));
  TRY(require_machine_format(chain.top));
  for (const Layer& layer : chain.below) TRY(require_machine_format(layer));
  return chain;
}

// What lies beside the overlay is named so: a copy of the box has a copy of it beside its own.
std::string reference_to(const Layer& base, const std::string& directory) {
  const bool beside = base.resolved_path == directory + "/" + image::last_part(base.resolved_path);
  return beside ? image::last_part(base.resolved_path) : base.resolved_path;
}

// What the overlay lies above: the file named, and what that lies above itself.
Result<DiskRecord> make_overlay(const DiskSpec& spec, const std::string& directory, const std::string& name,
                                std::uint64_t size, image::OperationContext& context) {
  DiskRecord record;
  std::optional<image::CreateOptions> create;
  {
    const auto asked = TRY(format_of(spec));
    const Chain chain = TRY(open_chain(spec.path, asked, {}, context));
    const image::DiskFormat format = chain.top.block->format();
    record.format = image::format_name(format);
    record.bases.push_back(TRY(facts_of(chain.top)));
    for (const Layer& layer : chain.below) record.bases.push_back(TRY(facts_of(layer)));
    if (spec.mode != DiskMode::kOverlay) return record;
    const std::uint64_t least = chain.top.block->size();
    if (size != 0 && size < least) {
      return Error(ErrorCode::kInvalidArgument,
                   "storage: less than the disk below it, which holds " + std::to_string(least) + " bytes")
          .on(spec.path);
    }
    create = image::CreateOptions{
        .size = size != 0 ? size : least,
        .backing = image::BackingOption{.path = reference_to(chain.top, directory), .format = format},
        .format = image::Qcow2Create{}};
  }
  record.overlay = name;
  const std::string path = directory + "/" + name;
  TRY(image::create_image(path, *create, context));
  // An image is as open as its maker's umask has it; a file of the home is its owner's alone.
  if (::chmod(path.c_str(), 0600) != 0) return os_error(errno, "cannot close a disk to others", path);
  return record;
}

}  // namespace

Status require_machine_format(const Layer& layer) {
  const image::DiskFormat format = layer.block->format();
  if (format == image::DiskFormat::kRaw || format == image::DiskFormat::kQcow2) return {};
  return Error(ErrorCode::kUnsupported, image::printable(layer.path) + " is a " + image::format_name(format) +
                                            " image; the disks of virtual machines consist of raw and qcow2 images")
      .on(layer.path);
}

Result<std::vector<FileFacts>> chain_facts(const std::vector<Layer>& layers) {
  std::vector<FileFacts> facts;
  facts.reserve(layers.size());
  for (const Layer& layer : layers) facts.push_back(TRY(facts_of(layer)));
  return facts;
}

Result<OpenLayer> reopen(const Layer& layer, bool writable) {
  const std::string place = "/proc/self/fd/" + std::to_string(fd_of(layer));
  UniqueFd file(::open(place.c_str(), (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC));
  if (!file.valid()) return os_error(errno, "cannot open a disk", layer.resolved_path);
  return OpenLayer{.format = layer.block->format(), .file = std::move(file)};
}

namespace {

Status check_bases(const DiskRecord& record, const std::vector<Layer>& layers) {
  const std::vector<FileFacts> now = TRY(chain_facts(layers));
  const auto are = [&](const std::vector<FileFacts>& noted) {
    return std::equal(now.begin(), now.end(), noted.begin(), noted.end(), is_same);
  };
  if (are(record.bases) || (record.next_bases && are(*record.next_bases))) return ok_status();
  const auto differs = [&](std::size_t i) { return i >= record.bases.size() || !is_same(now[i], record.bases[i]); };
  for (std::size_t i = 0; i < layers.size(); ++i) {
    if (!differs(i)) continue;
    return Error(ErrorCode::kImageChain,
                 "the disk's base changed since the box was made, so what the box wrote no "
                 "longer fits it")
        .on(layers[i].resolved_path)
        .advise("Put the base back as it was, or remove the box.");
  }
  return Error(ErrorCode::kImageChain, "the disk has lost a base since the box was made").on(record.bases.back().path);
}

Result<OpenDisk> open_disk(const BoxRecord& record, std::size_t index, const std::string& directory,
                           image::OperationContext& context) {
  const DiskSpec& spec = record.spec.disks[index];
  const DiskRecord& made = record.disks[index];
  const bool overlaid = !made.overlay.empty();
  const auto format = image::format_from_name(overlaid ? "qcow2" : made.format);
  const Chain chain = TRY(open_chain(disk_path(record, index, directory), format, bases_of(made), context));

  OpenDisk disk{.writable = spec.mode != DiskMode::kReadonly, .layers = {}, .size = chain.top.block->size()};
  disk.layers.push_back(TRY(reopen(chain.top, disk.writable)));
  for (const Layer& layer : chain.below) disk.layers.push_back(TRY(reopen(layer, false)));
  if (overlaid) TRY(check_bases(made, chain.below));
  return disk;
}

}  // namespace

std::vector<image::FileIdentity> bases_of(const DiskRecord& disk) {
  std::vector<image::FileIdentity> bases;
  for (const auto& list : {disk.bases, disk.next_bases.value_or(std::vector<FileFacts>())}) {
    for (const FileFacts& base : list) bases.push_back({.device = base.device, .inode = base.inode});
  }
  return bases;
}

std::string disk_path(const BoxRecord& record, std::size_t disk, const std::string& directory) {
  const std::string& overlay = record.disks[disk].overlay;
  return overlay.empty() ? record.spec.disks[disk].path : directory + "/" + overlay;
}

Result<std::vector<DiskRecord>> make_disks(const BoxSpec& spec, const std::string& directory,
                                           const PathPolicy& policy) {
  NoProgress progress;
  CancelToken cancel;  // of its own: what is made here is a step of something larger
  image::OperationContext context{.policy = policy, .cancel = cancel, .progress = progress};
  context.chain_depth = image::kMaxOwnChainDepth;
  std::vector<DiskRecord> made;
  for (std::size_t i = 0; i < spec.disks.size(); ++i) {
    const std::uint64_t size = i == 0 && spec.storage_asked ? spec.storage_bytes : 0;
    const std::string name = "disk" + std::to_string(i) + ".qcow2";
    made.push_back(TRY(make_overlay(spec.disks[i], directory, name, size, context)));
  }
  return made;
}

Result<std::vector<OpenDisk>> open_disks(const BoxRecord& record, const std::string& directory,
                                         const PathPolicy& policy) {
  if (record.disks.empty() || record.disks.size() != record.spec.disks.size())
    return Error(ErrorCode::kBoxStart, "the box's disks were never made: remove it and make it again");
  NoProgress progress;
  CancelToken cancel;  // of its own: what is made here is a step of something larger
  image::OperationContext context{.policy = policy, .cancel = cancel, .progress = progress};
  context.chain_depth = image::kMaxOwnChainDepth;
  std::vector<OpenDisk> disks;
  disks.reserve(record.disks.size());
  for (std::size_t i = 0; i < record.disks.size(); ++i) disks.push_back(TRY(open_disk(record, i, directory, context)));
  return disks;
}

}  // namespace sluicebox::box
