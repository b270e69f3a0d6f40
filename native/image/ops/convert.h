// convert.h: writes what a guest reads of one image into a new one, of any format.
// Knows: chains, create, the block interface. Does not know: how formats store bytes. Threads: one worker a call, and
// those that it reads and compresses with.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "image/disk_format.h"
#include "image/image_info.h"
#include "image/ops/context.h"
#include "image/ops/create.h"

namespace sluicebox::image {

struct ConvertOptions {
  // Its size: absent, the source's. With a backing, only what differs from that is written.
  CreateOptions target;
  std::optional<DiskFormat> source_format = std::nullopt;
  std::optional<std::string> snapshot = std::nullopt;  // of the source, by id or name: what it kept is converted
  bool compress = false;
  unsigned parallel = 0;  // threads; 0: one a core, up to 4. The file is the same whatever it is
  // So many zeros, aligned, become a hole: a power of two of at least 512; 0: everything is written.
  std::uint64_t sparse_size = 4096;
};

// Killed or cancelled at any point, the target is as it was before, or the whole new image. Phase reported: "convert",
// in bytes of the disk.
Result<ImageInfo> convert_image(const std::string& source, const std::string& target, const ConvertOptions& options,
                                OperationContext& context);

}  // namespace sluicebox::image
