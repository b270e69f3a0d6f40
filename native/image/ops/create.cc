#include "image/ops/create.h"

#include <algorithm>
#include <ctime>
#include <limits>
#include <vector>

#include "base/checked.h"
#include "image/chain.h"
#include "image/formats/qcow2/qcow2.h"
#include "image/formats/raw/raw.h"
#include "image/formats/vhd/footer.h"
#include "image/formats/vhd/plan.h"
#include "image/formats/vhd/vhd.h"
#include "image/formats/vhdx/plan.h"
#include "image/formats/vhdx/vhdx.h"
#include "image/guid.h"
#include "image/open_file.h"
#include "image/ops/create_vmdk.h"
#include "image/ops/describe.h"
#include "image/ops/new_file.h"
#include "image/ops/unsynced_file.h"
#include "image/ops/write_plan.h"

namespace sluicebox::image {

namespace {

constexpr std::uint64_t kSector = 512;
constexpr std::uint64_t kZeroChunk = 2u << 20;  // no smaller than the largest cluster

Preallocation preallocation_of(const CreateOptions& options) {
  if (const auto* raw = std::get_if<RawCreate>(&options.format)) return raw->preallocation;
  if (const auto* qcow2 = std::get_if<Qcow2Create>(&options.format)) return qcow2->preallocation;
  return Preallocation::kOff;
}

// Formats whose images know their backing by an id that only images of that format have.
std::optional<DiskFormat> stands_on_its_own_format(const CreateOptions& options) {
  if (std::holds_alternative<VmdkCreate>(options.format)) return DiskFormat::kVmdk;
  if (std::holds_alternative<VhdCreate>(options.format)) return DiskFormat::kVhd;
  if (std::holds_alternative<VhdxCreate>(options.format)) return DiskFormat::kVhdx;
  return std::nullopt;
}

Status require_supported(const CreateOptions& options) {
  const bool raw = std::holds_alternative<RawCreate>(options.format);
  if (raw && options.backing) {
    return Error(ErrorCode::kInvalidArgument, "backing: a raw image cannot record one").advise("create a qcow2 image");
  }
  const std::optional<DiskFormat> own = stands_on_its_own_format(options);
  if (own && options.backing && options.backing->format != *own) {
    return Error(ErrorCode::kUnsupported, std::string("backing: that of a ") + format_name(*own) + " image is a " +
                                              format_name(*own) + " image, not " + format_name(options.backing->format))
        .advise("create a qcow2 image, which stands on every format");
  }
  if (raw && preallocation_of(options) == Preallocation::kMetadata) {
    return Error(ErrorCode::kInvalidArgument, "preallocation: a raw image has no metadata to preallocate");
  }
  if (options.backing && preallocation_of(options) != Preallocation::kOff) {
    return Error(ErrorCode::kInvalidArgument, "preallocation: it would hide the backing behind zeros")
        .advise("leave preallocation off for an overlay");
  }
  return {};
}

// The size that the options and the backing's own size come to. The chain below is opened whole, so that nothing is
// created over one that could not be used.
struct DiskSize {
  std::uint64_t bytes = 0;
  std::optional<BackingReference> backing = std::nullopt;  // that was opened, as it is recorded
  std::uint64_t backing_unit = 0;                          // its allocation unit
  bool backing_there = false;                              // opened, or one that could be
};
Result<DiskSize> disk_size(const std::string& path, const CreateOptions& options,
                           const std::optional<FileIdentity>& replaced, std::vector<Layer>& chain,
                           OperationContext& context) {
  DiskSize found;
  std::optional<std::uint64_t> size = options.size;
  if (options.backing) {
    Layer image;
    image.path = path;
    image.resolved_path = path;
    image.directories.named = TRY(open_directory_of(path));
    image.identity = replaced.value_or(FileIdentity{});
    BackingReference reference{.path = options.backing->path, .format = format_name(options.backing->format)};
    if (options.unchecked_backing) {
      TRY(judge_unopened_backing(image, reference.path, context));
      found.backing_there = backing_exists(image, reference, context);
    } else {
      chain = TRY(open_backing_chain({.overlay = &image, .backing = reference, .named_by_caller = true}, context));
      if (!size) size = chain.front().block->size();
      note_identity(reference, chain.front());
      found.backing = std::move(reference);
      found.backing_unit = chain.front().block->allocation_unit();
      found.backing_there = true;
    }
  }
  if (!size) {
    return Error(ErrorCode::kInvalidArgument, "size is required when there is no backing to take it from");
  }
  // Guests see whole sectors; other tools cut a size that is not whole, so it is rounded up here.
  const std::optional<std::uint64_t> rounded = checked_align_up(*size, kSector);
  if (!rounded || *rounded > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
    return Error(ErrorCode::kInvalidArgument,
                 "size: " + std::to_string(*size) + " bytes are more than a file can hold");
  }
  found.bytes = *rounded;
  return found;
}

template <typename Write>
Status write_zeros(std::uint64_t size, OperationContext& context, const Write& write) {
  const std::vector<std::byte> zeros(std::min(size, kZeroChunk));
  for (std::uint64_t at = 0; at < size;) {
    TRY(context.cancel.check());
    const std::uint64_t part = std::min(kZeroChunk, size - at);
    TRY(write(at, Bytes(zeros).first(part)));
    at += part;
    context.progress.report({.phase = "allocate", .done = at, .total = size, .unit = ProgressUnit::kBytes});
  }
  return {};
}

Status write_raw(File& file, std::uint64_t size, Preallocation preallocation, OperationContext& context) {
  switch (preallocation) {
    case Preallocation::kOff:
    case Preallocation::kMetadata:
      return file.truncate(size);
    case Preallocation::kFalloc:
      return file.allocate(0, size);
    case Preallocation::kFull:
      return write_zeros(size, context, [&](std::uint64_t at, Bytes zeros) { return file.write_at(at, zeros); });
  }
  return {};
}

// Metadata first, which also gives the file its length; then space, or zeros, under every cluster.
Status preallocate(File& file, Preallocation preallocation, OperationContext& context) {
  if (preallocation == Preallocation::kOff) return {};
  const std::unique_ptr<Block> block = TRY(qcow2::open_qcow2(file, {.writable = true}));
  TRY(qcow2::preallocate_metadata(*block, context.progress, context.cancel));
  if (preallocation == Preallocation::kFalloc) {
    const std::uint64_t end = TRY(file.size());
    TRY(file.allocate(0, end));
  }
  if (preallocation == Preallocation::kFull) {
    TRY(write_zeros(block->size(), context, [&](std::uint64_t at, Bytes zeros) { return block->write(at, zeros); }));
  }
  return block->flush();
}

Status write_qcow2(File& file, const CreateOptions& options, const Qcow2Create& format, std::uint64_t size,
                   OperationContext& context) {
  qcow2::PlanOptions planned = plan_options(format, size);
  if (options.backing) {
    planned.backing_path = options.backing->path;
    planned.backing_format = recorded_name(options.backing->format);
  }
  std::vector<std::byte> scratch(TRY(qcow2::plan_scratch_size(planned)));
  const ImagePlan plan = TRY(qcow2::plan_qcow2(planned, scratch));
  TRY(write_plan(file, plan, context.cancel));
  return preallocate(file, format.preallocation, context);
}

// By which the new image knows its backing: nil without one.
Result<Guid> parent_id(const CreateOptions& options, const DiskSize& disk, bool little_endian) {
  if (!options.backing) return Guid{};
  const bool known = disk.backing && disk.backing->content_id;
  const auto id = known ? guid_from_text(*disk.backing->content_id, little_endian) : std::nullopt;
  if (id) return *id;
  return Error(ErrorCode::kUnsupported, "backing: its id is recorded, and it was not opened to read it");
}

Status write_vhd(File& file, const CreateOptions& options, const VhdCreate& format, const DiskSize& disk,
                 OperationContext& context) {
  vhd::PlanOptions planned{.virtual_size = disk.bytes,
                           .fixed = format.fixed,
                           .block_size = format.block_size,
                           .id = TRY(random_guid()),
                           .timestamp = vhd::timestamp_of(std::time(nullptr)),
                           .parent_id = TRY(parent_id(options, disk, /*little_endian=*/false))};
  if (disk.backing) planned.parent_path = disk.backing->path;
  if (disk.backing && disk.backing->modified) planned.parent_time = vhd::timestamp_of(*disk.backing->modified);
  std::vector<std::byte> scratch(TRY(vhd::plan_scratch_size(planned)));
  return write_plan(file, TRY(vhd::plan_vhd(planned, scratch)), context.cancel);
}

Status write_vhdx(File& file, const CreateOptions& options, const VhdxCreate& format, const DiskSize& disk,
                  OperationContext& context) {
  vhdx::PlanOptions planned{.virtual_size = disk.bytes,
                            .fixed = format.fixed,
                            .block_size = format.block_size,
                            .log_size = format.log_size,
                            .file_write = TRY(random_guid()),
                            .data_write = TRY(random_guid()),
                            .page83 = TRY(random_guid()),
                            .parent_link = TRY(parent_id(options, disk, /*little_endian=*/true))};
  if (disk.backing) {
    planned.parent_path = disk.backing->path;
    planned.sector_size = static_cast<std::uint32_t>(disk.backing_unit);
  }
  std::vector<std::byte> scratch(TRY(vhdx::plan_scratch_size(planned)));
  return write_plan(file, TRY(vhdx::plan_vhdx(planned, scratch)), context.cancel);
}

// The image that was just made: to be filled, or to be described.
Result<std::unique_ptr<Block>> open_new(File& file, const CreateOptions& options, bool writable) {
  if (std::holds_alternative<Qcow2Create>(options.format)) {
    return qcow2::open_qcow2(file, {.writable = writable, .info_only = !writable});
  }
  if (std::holds_alternative<VhdCreate>(options.format)) {
    return vhd::open_vhd(file, {.writable = writable, .info_only = !writable});
  }
  if (std::holds_alternative<VhdxCreate>(options.format)) {
    return vhdx::open_vhdx(file, {.writable = writable, .info_only = !writable});
  }
  return raw::open_raw(file, writable);
}

// Nobody sees the file yet: it becomes durable once, when it is whole.
Status fill_new(File& file, const CreateOptions& options, const std::vector<Layer>& backing,
                const NewContent& content) {
  UnsyncedFile unsynced(file);
  const std::unique_ptr<Block> image = TRY(open_new(unsynced, options, /*writable=*/true));
  BlockTarget target(*image, content.compress);
  return content.write(target, image->size(), backing);
}

}  // namespace

qcow2::PlanOptions plan_options(const Qcow2Create& format, std::uint64_t size) {
  qcow2::PlanOptions plan;
  plan.virtual_size = size;
  plan.cluster_size = format.cluster_size;
  plan.version = format.version;
  plan.refcount_bits = format.refcount_bits;
  plan.lazy_refcounts = format.lazy_refcounts;
  plan.extended_l2 = format.extended_l2;
  plan.zstd = format.zstd;
  return plan;
}

Result<ImageInfo> create_image(const std::string& path, const CreateOptions& options, OperationContext& context,
                               const NewContent* content) {
  TRY(context.cancel.check());
  TRY(require_supported(options));
  NewFile made = TRY(NewFile::begin(path, options.overwrite, context));
  std::vector<Layer> backing;
  const DiskSize found = TRY(disk_size(path, options, made.replaced(), backing, context));
  const std::uint64_t size = found.bytes;
  if (const auto* format = std::get_if<VmdkCreate>(&options.format)) {
    const VmdkRequest request{.options = options,
                              .format = *format,
                              .size = size,
                              .backing_content_id = found.backing ? found.backing->content_id : std::nullopt};
    return create_vmdk(path, made, request, backing, content, context);
  }

  NoProgress silent;  // what fills the image has its own scale, and this is not on it
  ProgressSink& progress = content != nullptr ? static_cast<ProgressSink&>(silent) : context.progress;
  OperationContext making{.policy = context.policy, .cancel = context.cancel, .progress = progress};
  if (const auto* format = std::get_if<Qcow2Create>(&options.format)) {
    TRY(write_qcow2(made.file(), options, *format, size, making));
  } else if (const auto* vhd = std::get_if<VhdCreate>(&options.format)) {
    TRY(write_vhd(made.file(), options, *vhd, found, making));
  } else if (const auto* vhdx = std::get_if<VhdxCreate>(&options.format)) {
    TRY(write_vhdx(made.file(), options, *vhdx, found, making));
  } else {
    TRY(write_raw(made.file(), size, preallocation_of(options), making));
  }
  if (content != nullptr) TRY(fill_new(made.file(), options, backing, *content));
  // Opened once before it is published: what is described is what was written, not what was meant.
  const std::unique_ptr<Block> block = TRY(open_new(made.file(), options, /*writable=*/false));
  ImageInfo info = TRY(describe(path, made.file(), *block));
  if (info.backing) info.backing->exists = found.backing_there;
  TRY(made.publish(context.cancel));
  return info;
}

}  // namespace sluicebox::image
