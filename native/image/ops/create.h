// create.h: a new, empty image, whole under its final name or not there at all.
// Knows: planners, chain (to read a backing's size). Threads: one worker a call.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>

#include "base/result.h"
#include "image/image_info.h"
#include "image/ops/context.h"

namespace sluicebox::image {

enum class Preallocation : std::uint8_t { kOff, kMetadata, kFalloc, kFull };

struct BackingOption {
  std::string path;  // relative: against the new image's directory; stored as given
  DiskFormat format;
};
struct RawCreate {
  Preallocation preallocation = Preallocation::kOff;  // not kMetadata
};
struct Qcow2Create {
  std::uint64_t cluster_size = 65536;
  unsigned version = 3;
  unsigned refcount_bits = 16;
  bool lazy_refcounts = false;
  bool extended_l2 = false;  // kUnsupported for now
  bool zstd = false;         // kUnsupported for now
  Preallocation preallocation = Preallocation::kOff;
};
struct CreateOptions {
  std::optional<std::uint64_t> size = std::nullopt;  // absent: the backing's
  bool overwrite = false;
  std::optional<BackingOption> backing = std::nullopt;
  bool unchecked_backing = false;  // it is not opened: somebody may be writing to it. `size` is required then
  std::variant<RawCreate, Qcow2Create> format = {};
};

Result<ImageInfo> create_image(const std::string& path, const CreateOptions& options, OperationContext& context);

}  // namespace sluicebox::image
