#include "image/ops/resize.h"

#include <algorithm>
#include <vector>

#include "base/checked.h"
#include "image/chain.h"
#include "image/ops/describe.h"
#include "image/ops/differing_ranges.h"
#include "image/ops/growth.h"
#include "image/printable.h"

namespace sluicebox::image {

namespace {

constexpr std::uint64_t kGuestSector = 512;
constexpr std::uint64_t kAllocateChunk = 64u << 20;  // between two looks at the cancel token
constexpr std::uint64_t kZerosChunk = 1u << 20;

Status require_preallocatable(const Layer& image, const ResizeOptions& options, std::uint64_t size) {
  if (options.preallocation == Preallocation::kOff) return {};
  const DiskFormat format = image.block->format();
  if (format != DiskFormat::kRaw && format != DiskFormat::kQcow2) {
    return Error(ErrorCode::kUnsupported, std::string("preallocation: what a ") + format_name(format) +
                                              " disk gains is not allocated beforehand")
        .on(image.path);
  }
  if (format == DiskFormat::kRaw && options.preallocation == Preallocation::kMetadata) {
    return Error(ErrorCode::kInvalidArgument, "preallocation: a raw image has no metadata to preallocate")
        .on(image.path);
  }
  if (size >= image.block->size()) return {};
  return Error(ErrorCode::kInvalidArgument, "preallocation: a disk that shrinks gains nothing to allocate")
      .on(image.path);
}

Status require_resizable(const Layer& image, const ResizeOptions& options, std::uint64_t size) {
  const std::uint64_t present = image.block->size();
  if (size < present && !options.shrink) {
    return Error(ErrorCode::kInvalidArgument, "shrink: " + printable(image.path) + " has " + std::to_string(present) +
                                                  " bytes and would lose what lies behind the first " +
                                                  std::to_string(size))
        .on(image.path)
        .advise("give shrink: true once the guest keeps nothing there");
  }
  TRY(require_preallocatable(image, options, size));
  if (!image.regular && image.block->format() == DiskFormat::kRaw) {
    return Error(ErrorCode::kUnsupported, printable(image.path) + " is a block device, which stays as large as it is")
        .on(image.path)
        .advise("resize the device itself");
  }
  TRY(image.block->may_be_written(Writing::kBytes));
  return image.block->can_resize(size);
}

// Only a larger disk may show the backing where it did not: to shrink, none of it has to be there.
Status prepare_over_backing(const Layer& image, std::uint64_t size, const ResizeOptions& options,
                            OperationContext& context) {
  const std::vector<Layer> below = TRY(
      open_backing_chain({.overlay = &image, .backing = image.block->backing(), .also_named = options.known}, context));
  return prepare_growth(*image.block, blocks_of(below), size, context.progress, context.cancel);
}

Status commit_size(Block& block, std::uint64_t size, OperationContext& context) {
  if (!context.cancel.try_commit()) return Error(ErrorCode::kCancelled, "the resize was cancelled");
  const std::uint64_t change = size > block.size() ? size - block.size() : block.size() - size;
  context.progress.report({.phase = "header", .done = change, .total = change});
  return block.resize(size);
}

// A range of the file or of the disk, in parts, each of which `write` gives its space.
template <typename Write>
Status in_parts(std::uint64_t begin, std::uint64_t end, std::uint64_t most, OperationContext& context,
                const Write& write) {
  for (std::uint64_t at = begin; at < end;) {
    TRY(context.cancel.check());
    context.progress.report({.phase = "allocate", .done = at - begin, .total = end - begin});
    const std::uint64_t part = std::min(end - at, most);
    TRY(write(at, part));
    at += part;
  }
  return {};
}

// What the disk has gained from `begin` on. Where the image maps its bytes, their places lie at the end of the file.
Status allocate(const Layer& image, std::uint64_t begin, Preallocation preallocation, OperationContext& context) {
  Block& block = *image.block;
  File& file = *image.file;
  const bool mapped = block.format() != DiskFormat::kRaw;
  const std::uint64_t place = mapped ? TRY(file.size()) : begin;
  if (mapped) TRY(block.allocate(begin, context.cancel));
  if (preallocation == Preallocation::kMetadata) return {};
  // Also of what is written below: a disk that is full is seen before any of it.
  NoProgress silent;
  OperationContext reserving{.policy = context.policy, .cancel = context.cancel, .progress = silent};
  const bool fill = preallocation == Preallocation::kFull;
  const std::uint64_t end = TRY(file.size());
  TRY(in_parts(place, end, kAllocateChunk, fill ? reserving : context,
               [&](std::uint64_t at, std::uint64_t part) { return file.allocate(at, part); }));
  if (!fill) return file.sync();
  const std::vector<std::byte> zeros(kZerosChunk);
  const std::uint64_t first = checked_align_up(begin, block.allocation_unit()).value_or(begin);
  TRY(in_parts(first, block.size(), kZerosChunk, context,
               [&](std::uint64_t at, std::uint64_t part) { return block.write(at, Bytes(zeros).first(part)); }));
  return block.flush();
}

// The new size first, in one step, and then the space: killed in between, the disk is large, and sparse. What fails or
// is cancelled takes the size back.
Status grow_allocated(const Layer& image, std::uint64_t size, Preallocation preallocation, OperationContext& context) {
  Block& block = *image.block;
  const std::uint64_t present = block.size();
  TRY(block.resize(size));
  Status allocated = allocate(image, present, preallocation, context);
  if (allocated.ok() && !context.cancel.try_commit()) {
    allocated = Error(ErrorCode::kCancelled, "the resize was cancelled");
  }
  // As far as that goes: the error that led here is the one to tell.
  if (!allocated.ok()) (void)block.resize(present);
  return allocated;
}

Status apply_size(const Layer& image, const ResizeOptions& options, std::uint64_t size, OperationContext& context) {
  Block& block = *image.block;
  NoProgress silent;  // the phases of a resize have one scale, and this is not on it
  TRY(block.prepare_to_write(Writing::kBytes, silent, context.cancel));
  if (size > block.size()) {
    TRY(prepare_over_backing(image, size, options, context));
    if (options.preallocation != Preallocation::kOff) {
      return grow_allocated(image, size, options.preallocation, context);
    }
  }
  return commit_size(block, size, context);
}

}  // namespace

Result<ImageInfo> resize_image(const std::string& path, const ResizeOptions& options, OperationContext& context) {
  TRY(context.cancel.check());
  const Layer image = TRY(open_layer(path, options.format, Access::kWrite, context));
  TRY(resize_layer(image, options, context));
  ImageInfo info = TRY(describe(path, *image.file, *image.block));
  if (info.backing) info.backing->exists = backing_exists(image, *image.block->backing(), context);
  return info;
}

Status resize_layer(const Layer& image, const ResizeOptions& options, OperationContext& context) {
  const auto size = checked_align_up(options.size, kGuestSector);
  if (!size) {
    return Error(ErrorCode::kInvalidArgument,
                 "size: " + std::to_string(options.size) + " bytes are more than a file can hold")
        .on(image.path);
  }
  TRY(require_resizable(image, options, *size));
  if (*size == image.block->size()) return {};
  Status applied = apply_size(image, options, *size, context);
  // Space that nothing refers to would stay in the file for good.
  if (!applied.ok()) image.block->abandon();
  return applied;
}

}  // namespace sluicebox::image
