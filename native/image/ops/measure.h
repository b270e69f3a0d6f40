// measure.h: how large a file a conversion would make, without making it.
// Knows: chains, the formats' own counts. Threads: one worker a call.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "image/disk_format.h"
#include "image/ops/context.h"

namespace sluicebox::image {

struct MeasureOptions {
  DiskFormat format = DiskFormat::kQcow2;  // of the file to be made, with the defaults of create
  // Either what is to be converted, with its own format where that must not be probed; or the size of an empty disk.
  std::optional<std::string> source = std::nullopt;
  std::optional<DiskFormat> source_format = std::nullopt;
  std::uint64_t size = 0;
};

struct MeasuredSizes {
  std::uint64_t required = 0;         // with the data that there is now
  std::uint64_t fully_allocated = 0;  // with data everywhere
};

// The numbers of qemu-img's measure. kUnsupported for formats that it does not measure either.
Result<MeasuredSizes> measure_image(const MeasureOptions& options, OperationContext& context);

}  // namespace sluicebox::image
