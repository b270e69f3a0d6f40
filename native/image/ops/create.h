// create.h: a new, empty image, whole under its final name or not there at all.
// Knows: planners, chain (to read a backing's size). Threads: one worker a call.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/result.h"
#include "image/block.h"
#include "image/chain.h"
#include "image/formats/qcow2/plan.h"
#include "image/formats/vmdk/plan.h"
#include "image/image_info.h"
#include "image/ops/context.h"
#include "image/ops/convert_target.h"

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
  bool extended_l2 = false;
  bool zstd = false;  // how what is compressed is; else deflate
  Preallocation preallocation = Preallocation::kOff;
};
struct VmdkCreate {
  vmdk::Subformat subformat = vmdk::Subformat::kMonolithicSparse;
  std::uint64_t grain_size = 65536;  // not of flat ones
  vmdk::Adapter adapter = vmdk::Adapter::kIde;
  static constexpr Preallocation preallocation = Preallocation::kOff;
};
struct VhdCreate {
  bool fixed = false;
  std::uint64_t block_size = 2u << 20;  // of a dynamic one
  static constexpr Preallocation preallocation = Preallocation::kOff;
};
struct VhdxCreate {
  bool fixed = false;
  std::uint64_t block_size = 0;  // 0: by the disk's size
  std::uint64_t log_size = 1u << 20;
  static constexpr Preallocation preallocation = Preallocation::kOff;
};
struct CreateOptions {
  std::optional<std::uint64_t> size = std::nullopt;  // absent: the backing's
  bool overwrite = false;
  std::optional<BackingOption> backing = std::nullopt;
  bool unchecked_backing = false;  // it is not opened: somebody may be writing to it. `size` is required then
  std::variant<RawCreate, Qcow2Create, VmdkCreate, VhdCreate, VhdxCreate> format = {};
};

// What the image holds from the moment that it is seen.
struct NewContent {
  bool compress = false;
  // `disk_bytes`: of the new image. `backing`: what it stands on.
  std::function<Status(ConvertTarget& target, std::uint64_t disk_bytes, const std::vector<Layer>& backing)> write;
};

// As the format plans such a file, without a backing.
qcow2::PlanOptions plan_options(const Qcow2Create& format, std::uint64_t size);

// `content`: absent, there is none.
Result<ImageInfo> create_image(const std::string& path, const CreateOptions& options, OperationContext& context,
                               const NewContent* content = nullptr);

}  // namespace sluicebox::image
