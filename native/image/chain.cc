#include "image/chain.h"

#include <fcntl.h>

#include <algorithm>

#include "image/formats/qcow2/qcow2.h"
#include "image/formats/raw/raw.h"
#include "image/locks.h"
#include "image/open_file.h"
#include "image/printable.h"
#include "image/probe.h"

namespace sluicebox::image {

namespace {

// A file that was judged becomes a layer without a format: opened and locked, nothing of it read.
Result<Layer> lock_and_open(FoundFile found, const std::string& path, Access access, OperationContext& context) {
  std::unique_ptr<PosixFile> file = TRY(found.open(access == Access::kWrite));
  Layer layer;
  layer.path = path;
  layer.resolved_path = found.resolved_path();
  layer.identity = found.identity();
  layer.regular = found.is_regular();
  if (context.before_lock) context.before_lock();
  if (access != Access::kShared) {
    const LockMode mode = access == Access::kWrite ? LockMode::kWriter : LockMode::kReader;
    layer.locks_unavailable = TRY(lock_image(file->fd(), mode, path)) == LockOutcome::kUnavailable;
    // What took the name between opening and locking would be another's image, and ours a file that nobody sees.
    if (!found.still_named()) {
      return Error(ErrorCode::kImageLocked, printable(path) + " was replaced by another file while it was opened")
          .on(path)
          .advise("try again");
    }
  }
  layer.directories = found.take_directories();
  layer.file = std::move(file);
  if (access == Access::kWrite && context.wrap_file) layer.file = context.wrap_file(std::move(layer.file));
  return layer;
}

Status open_format(Layer& layer, DiskFormat format, Access access, Purpose purpose, OperationContext& context) {
  const bool writable = access == Access::kWrite;
  switch (format) {
    case DiskFormat::kRaw:
      layer.block = TRY(raw::open_raw(*layer.file, writable));
      return {};
    case DiskFormat::kQcow2:
      layer.block = TRY(qcow2::open_qcow2(*layer.file, {.writable = writable,
                                                        .for_repair = purpose == Purpose::kRepair,
                                                        .info_only = purpose == Purpose::kInfo,
                                                        .budget = context.metadata,
                                                        .cancel = &context.cancel}));
      return {};
  }
  return Error(ErrorCode::kInternal, "an image format without a reader");
}

Status require_file_name(const std::string& reference, const Layer& overlay, bool named_by_caller) {
  if (named_by_caller) return require_file_reference(reference);
  if (!has_protocol(reference)) return {};
  return Error(ErrorCode::kPathRefused,
               printable(overlay.path) + " names " + printable(reference) + ", which is a protocol and not a file")
      .on(overlay.path)
      .advise("images may only name files; unsafe rebase with a plain file name replaces it, allowPaths does not help");
}

// What an image records decides, never a probe: a guest that writes a qcow2 header into its raw disk gains nothing.
Result<DiskFormat> recorded_format(const BackingReference& backing, const Layer& overlay) {
  if (!backing.format || backing.format->empty()) {
    return Error(ErrorCode::kImageChain, printable(overlay.path) + " does not record the format of its backing " +
                                             printable(backing.path) + ", and it is not guessed")
        .on(overlay.path)
        .advise("record it: rebase onto the same backing with unsafe mode and backingFormat");
  }
  const std::optional<DiskFormat> format = format_from_name(*backing.format);
  if (format) return *format;
  return Error(ErrorCode::kUnsupported, printable(overlay.path) + " has a backing of the format " +
                                            printable(*backing.format) + ", which this engine does not read")
      .on(overlay.path);
}

Result<DiskFormat> format_for_caller(const BackingReference& backing, const Layer& overlay, const File& file) {
  if (backing.format && !backing.format->empty()) return recorded_format(backing, overlay);
  const std::optional<DiskFormat> probed = TRY(probe_format(file));
  if (probed) return *probed;
  return Error(ErrorCode::kInvalidArgument,
               "backingFormat is required: " + printable(backing.path) + " has no header that tells its format")
      .on(backing.path)
      .advise("give backingFormat 'raw' if the file is a raw disk");
}

}  // namespace

Result<Layer> open_layer(const std::string& path, std::optional<DiskFormat> format, Access access,
                         OperationContext& context, Purpose purpose) {
  FoundFile found = TRY(FoundFile::find(path, NamedBy{.caller = true}, context.policy));
  Layer layer = TRY(lock_and_open(std::move(found), path, access, context));
  if (!format) format = TRY(probe_format(*layer.file)).value_or(DiskFormat::kRaw);
  TRY(open_format(layer, *format, access, purpose, context));
  return layer;
}

Result<std::vector<Layer>> open_backing_chain(const OpenBacking& request, OperationContext& context) {
  std::vector<Layer> layers;
  std::vector<FileIdentity> seen = {request.overlay->identity};
  std::optional<BackingReference> backing = request.backing;
  bool named_by_caller = request.named_by_caller;
  while (backing) {
    TRY(context.cancel.check());
    const Layer& overlay = layers.empty() ? *request.overlay : layers.back();
    TRY(require_file_name(backing->path, overlay, named_by_caller));
    const std::string path = resolve_backing_path(overlay.path, backing->path);
    if (seen.size() == context.chain_depth) {
      return Error(ErrorCode::kImageChain, "the chain of " + printable(request.overlay->path) + " is longer than " +
                                               std::to_string(context.chain_depth) + " images")
          .on(path)
          .advise("commit or rebase layers away first");
    }
    FoundFile found = TRY(find_backing(overlay, backing->path, named_by_caller, request.also_named, context.policy));
    // Before the lock: the writer's lock on the overlay would refuse it first, and for a worse reason.
    if (std::ranges::find(seen, found.identity()) != seen.end()) {
      return Error(ErrorCode::kImageChain, printable(path) + " is in the chain already: it would back itself")
          .on(path)
          .advise("name an image that does not stand on " + printable(request.overlay->path));
    }
    seen.push_back(found.identity());

    std::optional<DiskFormat> format;
    if (!named_by_caller) format = TRY(recorded_format(*backing, overlay));
    const Access access = request.written == found.identity() ? Access::kWrite : request.access;
    Layer layer = TRY(lock_and_open(std::move(found), path, access, context));
    if (!format) format = TRY(format_for_caller(*backing, overlay, *layer.file));
    TRY(open_format(layer, *format, access, request.purpose, context));
    layers.push_back(std::move(layer));
    backing = layers.back().block->backing();
    named_by_caller = false;
  }
  return layers;
}

Result<FoundFile> find_backing(const Layer& overlay, const std::string& reference, bool named_by_caller,
                               const std::vector<FileIdentity>& also_named, const PathPolicy& policy) {
  NamedBy named_by{.caller = named_by_caller,
                   .start = overlay.directories.named.get(),
                   .shown = resolve_backing_path(overlay.path, reference)};
  if (!named_by_caller) {
    named_by.own_directories = overlay.directories.open();
    named_by.also_named = also_named;
  }
  return FoundFile::find(reference, named_by, policy);
}

bool backing_exists(const Layer& overlay, const BackingReference& backing, OperationContext& context) {
  if (has_protocol(backing.path)) return false;
  return find_backing(overlay, backing.path, false, {}, context.policy).ok();
}

std::string resolve_backing_path(const std::string& image_path, const std::string& reference) {
  if (reference.starts_with('/')) return reference;
  const std::size_t slash = image_path.rfind('/');
  return slash == std::string::npos ? reference : image_path.substr(0, slash + 1) + reference;
}

}  // namespace sluicebox::image
