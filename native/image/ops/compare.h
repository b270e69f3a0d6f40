// compare.h: whether two images show a guest the same bytes.
// Knows: chains, block status. Does not know: formats. Threads: one worker a call, and one more that it reads with.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "image/disk_format.h"
#include "image/ops/context.h"

namespace sluicebox::image {

struct CompareOptions {
  // Whether disks of different sizes, or with different parts allocated, count as different too.
  bool strict = false;
  std::optional<DiskFormat> first_format = std::nullopt, second_format = std::nullopt;
  bool shared = false;  // both are read although another program writes them: the answer may be of no moment
};

struct CompareResult {
  bool identical = true;
  bool size_differs = false;
  // The first sector of 512 bytes that differs, or whose allocation does. None where strict found the sizes different.
  std::optional<std::uint64_t> first_difference;
  bool allocation_differs = false;  // there, and not the bytes
};

// Past its end the smaller disk counts as zeros. What both say is zero is not read. Phase reported: "compare".
Result<CompareResult> compare_images(const std::string& first, const std::string& second, const CompareOptions& options,
                                     OperationContext& context);

}  // namespace sluicebox::image
