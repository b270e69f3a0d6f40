// check.h: counts what an image's metadata refers to, compares, and repairs what it was allowed to.
// Knows: the block interface. Threads: one worker a call.
#pragma once

#include <optional>
#include <string>

#include "base/result.h"
#include "image/block.h"
#include "image/ops/context.h"

namespace sluicebox::image {

struct CheckOptions {
  Repair repair = Repair::kNone;
  std::optional<DiskFormat> format = std::nullopt;
  // Read although another program writes it, of which a check may take what is half written for damage. Not to repair.
  bool shared = false;
};

Result<CheckReport> check_image(const std::string& path, const CheckOptions& options, OperationContext& context);

}  // namespace sluicebox::image
