#include "image/chain.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>

#include "image/formats/qcow2/qcow2.h"
#include "image/formats/raw/raw.h"
#include "image/formats/vhd/vhd.h"
#include "image/formats/vhdx/vhdx.h"
#include "image/formats/vmdk/vmdk.h"
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

// A file that the image at `layer` names as a part of its disk: in its own folder or an allowed one, regular, locked
// and opened as the image is, and each but once.
Result<File*> open_beside(Layer& layer, const std::string& name, Access access, OperationContext& context) {
  TRY(context.cancel.check());
  if (has_protocol(name)) {
    return Error(ErrorCode::kPathRefused,
                 printable(layer.path) + " names " + printable(name) + ", which is a protocol and not a file")
        .on(layer.path)
        .advise("images may only name files");
  }
  const std::string path = resolve_backing_path(layer.path, name);
  FoundFile found = TRY(FoundFile::find(name,
                                        NamedBy{.caller = false,
                                                .own_directories = layer.directories.open(),
                                                .start = layer.directories.named.get(),
                                                .shown = path},
                                        context.policy));
  if (found.identity() == layer.identity) return layer.file.get();
  for (const Layer::Beside& each : layer.files_beside) {
    if (each.identity == found.identity()) return each.file.get();
  }
  Layer opened = TRY(lock_and_open(std::move(found), path, access, context));
  layer.locks_unavailable |= opened.locks_unavailable;
  layer.files_beside.push_back({.identity = opened.identity, .file = std::move(opened.file)});
  return layer.files_beside.back().file.get();
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
                                                        .salvage = purpose == Purpose::kSalvage,
                                                        .budget = context.metadata,
                                                        .cancel = &context.cancel}));
      return {};
    case DiskFormat::kVmdk:
      layer.block = TRY(vmdk::open_vmdk(
          *layer.file,
          {.writable = writable,
           .for_repair = purpose == Purpose::kRepair,
           .salvage = purpose == Purpose::kSalvage,
           .open_extent = [&](const std::string& name) { return open_beside(layer, name, access, context); },
           .budget = context.metadata}));
      return {};
    case DiskFormat::kVhd:
      layer.block = TRY(vhd::open_vhd(*layer.file, {.writable = writable,
                                                    .info_only = purpose == Purpose::kInfo,
                                                    .budget = context.metadata,
                                                    .cancel = &context.cancel}));
      return {};
    case DiskFormat::kVhdx:
      layer.block = TRY(vhdx::open_vhdx(*layer.file, {.writable = writable,
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

// A backing that changed since the overlay was made over it shows other bytes where the overlay has none.
Status require_same_content(const BackingReference& backing, const Layer& overlay, const Layer& layer) {
  const std::optional<std::string> found = layer.block->content_id();
  if (!backing.content_id || !found || *backing.content_id == *found) return {};
  return Error(ErrorCode::kImageChain, printable(layer.path) + " was written since " + printable(overlay.path) +
                                           " was made over it: its content id is " + *found + ", not " +
                                           *backing.content_id)
      .on(layer.path)
      .advise("if its content is right, record it: rebase the overlay onto the same backing in unsafe mode");
}

// What a differencing image was made over, it knows by an id, and by a name only as a hint where to look: without that
// very image its chain is broken.
Result<FoundFile> find_recorded(const Layer& overlay, const OpenBacking& request, const std::string& reference,
                                bool named_by_caller, const PathPolicy& policy) {
  const bool by_id = !named_by_caller && overlay.block && !overlay.block->identity().empty();
  if (by_id && reference.empty()) {
    return Error(ErrorCode::kImageChain, printable(overlay.path) + " has no name of its parent that can be read")
        .on(overlay.path);
  }
  auto found = find_backing(overlay, reference, named_by_caller, request.also_named, policy);
  if (found.ok() || !by_id || found.error().code != ErrorCode::kImageNotFound) return found;
  Error error = std::move(found).error();
  error.code = ErrorCode::kImageChain;
  error.message = "the parent of " + printable(overlay.path) + " is not there: " + error.message;
  return error;
}

}  // namespace

Result<Layer> open_layer(const std::string& path, std::optional<DiskFormat> format, Access access,
                         OperationContext& context, Purpose purpose) {
  FoundFile found = TRY(FoundFile::find(path, NamedBy{.caller = true}, context.policy));
  Layer layer = TRY(lock_and_open(std::move(found), path, access, context));
  if (!format) {
    auto probed = probe_format(*layer.file);
    if (!probed.ok() && purpose == Purpose::kSalvage && probed.error().code == ErrorCode::kIo) {
      return std::move(probed).error().advise("give its format, sourceFormat: 'raw' where it is a disk itself");
    }
    format = TRY(std::move(probed)).value_or(DiskFormat::kRaw);
  }
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
    FoundFile found = TRY(find_recorded(overlay, request, backing->path, named_by_caller, context.policy));
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
    TRY(require_same_content(*backing, overlay, layer));
    if (!named_by_caller && overlay.block) TRY(overlay.block->accepts_backing(*layer.block));
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

Status judge_unopened_backing(const Layer& overlay, const std::string& reference, OperationContext& context) {
  TRY(require_file_reference(reference));
  const std::string path = resolve_backing_path(overlay.path, reference);
  const Result<FoundFile> found = find_backing(overlay, reference, /*named_by_caller=*/true, {}, context.policy);
  if (path == overlay.path || (found.ok() && found.value().identity() == overlay.identity)) {
    return Error(ErrorCode::kImageChain, printable(path) + " is the overlay itself").on(path);
  }
  if (!found.ok() && found.error().code == ErrorCode::kPathRefused) return found.error();
  return {};
}

bool backing_exists(const Layer& overlay, const BackingReference& backing, OperationContext& context) {
  if (has_protocol(backing.path)) return false;
  return find_backing(overlay, backing.path, false, {}, context.policy).ok();
}

void note_identity(BackingReference& reference, const Layer& backing) {
  reference.content_id = backing.block->recorded_id();
  struct stat found = {};
  if (::stat(backing.resolved_path.c_str(), &found) == 0) reference.modified = found.st_mtime;
}

std::string resolve_backing_path(const std::string& image_path, const std::string& reference) {
  if (reference.starts_with('/')) return reference;
  const std::size_t slash = image_path.rfind('/');
  return slash == std::string::npos ? reference : image_path.substr(0, slash + 1) + reference;
}

}  // namespace sluicebox::image
