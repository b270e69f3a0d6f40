// info.h: what an image is, by its header alone, or with its whole chain.
// Knows: chain. Never writes. Threads: one worker a call.
#pragma once

#include <optional>
#include <string>

#include "base/result.h"
#include "image/image_info.h"
#include "image/ops/context.h"

namespace sluicebox::image {

struct InfoOptions {
  bool chain = false;
  std::optional<DiskFormat> format = std::nullopt;  // absent: probed, for this file only
  bool shared = false;                              // take no lock: the answer may be torn
};

Result<ImageInfo> image_info(const std::string& path, const InfoOptions& options, OperationContext& context);

}  // namespace sluicebox::image
