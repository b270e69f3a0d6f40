// resize.h: makes a disk larger, or smaller where that was asked for.
// Knows: block interface, chain, locks. Does not know: how a format stores its size. Threads: one worker a call.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "image/chain.h"
#include "image/disk_format.h"
#include "image/image_info.h"
#include "image/ops/context.h"
#include "image/ops/create.h"

namespace sluicebox::image {

struct ResizeOptions {
  std::uint64_t size = 0;                             // rounded up to 512, as a new image's is
  bool shrink = false;                                // what lies beyond a smaller size may be lost
  Preallocation preallocation = Preallocation::kOff;  // of what is gained; a raw image has no metadata
  std::optional<DiskFormat> format = std::nullopt;
  std::vector<FileIdentity> known = {};  // what the chain may consist of, wherever it lies
};

// What is gained reads as zeros, whatever the image or a larger backing has there. Killed at any moment, the disk is as
// large as before, or as large as asked for, if not all allocated yet. Phases reported: "zero", "allocate", "header".
Result<ImageInfo> resize_image(const std::string& path, const ResizeOptions& options, OperationContext& context);

// The same for an image that is open already, for writing.
Status resize_layer(const Layer& image, const ResizeOptions& options, OperationContext& context);

}  // namespace sluicebox::image
