#include "image/ops/create.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "base/checked.h"
#include "image/chain.h"
#include "image/formats/qcow2/plan.h"
#include "image/formats/qcow2/qcow2.h"
#include "image/formats/raw/raw.h"
#include "image/open_file.h"
#include "image/ops/describe.h"
#include "image/ops/new_file.h"

namespace sluicebox::image {

namespace {

constexpr std::uint64_t kSector = 512;
constexpr std::uint64_t kZeroChunk = 2u << 20;  // no smaller than the largest cluster

Preallocation preallocation_of(const CreateOptions& options) {
  return std::visit([](const auto& format) { return format.preallocation; }, options.format);
}

Status require_supported(const CreateOptions& options) {
  const bool raw = std::holds_alternative<RawCreate>(options.format);
  if (raw && options.backing) {
    return Error(ErrorCode::kInvalidArgument, "backing: a raw image cannot record one").advise("create a qcow2 image");
  }
  if (raw && preallocation_of(options) == Preallocation::kMetadata) {
    return Error(ErrorCode::kInvalidArgument, "preallocation: a raw image has no metadata to preallocate");
  }
  if (options.backing && preallocation_of(options) != Preallocation::kOff) {
    return Error(ErrorCode::kInvalidArgument, "preallocation: it would hide the backing behind zeros")
        .advise("leave preallocation off for an overlay");
  }
  if (const auto* format = std::get_if<Qcow2Create>(&options.format); format != nullptr && format->zstd) {
    return Error(ErrorCode::kUnsupported, "compression 'zstd' is not built").advise("use 'zlib'");
  }
  return {};
}

// The size that the options and the backing's own size come to. The chain below is opened whole, so that nothing is
// created over one that could not be used.
Result<std::uint64_t> disk_size(const std::string& path, const CreateOptions& options,
                                const std::optional<FileIdentity>& replaced, OperationContext& context) {
  std::optional<std::uint64_t> size = options.size;
  if (options.backing && !options.unchecked_backing) {
    Layer image;
    image.path = path;
    image.resolved_path = path;
    image.directories.named = TRY(open_directory_of(path));
    image.identity = replaced.value_or(FileIdentity{});
    const BackingReference reference{.path = options.backing->path, .format = format_name(options.backing->format)};
    const std::vector<Layer> chain =
        TRY(open_backing_chain({.overlay = &image, .backing = reference, .named_by_caller = true}, context));
    if (!size) size = chain.front().block->size();
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
  return *rounded;
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

qcow2::PlanOptions plan_options(const CreateOptions& options, const Qcow2Create& format, std::uint64_t size) {
  qcow2::PlanOptions plan;
  plan.virtual_size = size;
  plan.cluster_size = format.cluster_size;
  plan.version = format.version;
  plan.refcount_bits = format.refcount_bits;
  plan.lazy_refcounts = format.lazy_refcounts;
  plan.extended_l2 = format.extended_l2;
  if (options.backing) {
    plan.backing_path = options.backing->path;
    plan.backing_format = format_name(options.backing->format);
  }
  return plan;
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
  const qcow2::PlanOptions planned = plan_options(options, format, size);
  std::vector<std::byte> scratch(TRY(qcow2::plan_scratch_size(planned)));
  const qcow2::Plan plan = TRY(qcow2::plan_qcow2(planned, scratch));
  for (const qcow2::PlanWrite& write : plan.all()) {
    TRY(context.cancel.check());
    TRY(file.write_at(write.offset, write.bytes));
  }
  if (TRY(file.size()) < plan.minimum_file_size) TRY(file.truncate(plan.minimum_file_size));
  return preallocate(file, format.preallocation, context);
}

}  // namespace

Result<ImageInfo> create_image(const std::string& path, const CreateOptions& options, OperationContext& context) {
  TRY(context.cancel.check());
  TRY(require_supported(options));
  NewFile made = TRY(NewFile::begin(path, options.overwrite, context));
  const std::uint64_t size = TRY(disk_size(path, options, made.replaced(), context));

  // Opened once before it is published: what is described is what was written, not what was meant.
  std::unique_ptr<Block> block;
  if (const auto* format = std::get_if<Qcow2Create>(&options.format)) {
    TRY(write_qcow2(made.file(), options, *format, size, context));
    block = TRY(qcow2::open_qcow2(made.file(), {.info_only = true}));
  } else {
    TRY(write_raw(made.file(), size, preallocation_of(options), context));
    block = TRY(raw::open_raw(made.file(), /*writable=*/false));
  }
  ImageInfo info = TRY(describe(path, made.file(), *block));
  if (info.backing) info.backing->exists = true;
  TRY(made.publish(context.cancel));
  return info;
}

}  // namespace sluicebox::image
