// measure.h: how large a file a conversion would make, without making it.
// Knows: chains, the formats' own counts. Threads: one worker a call.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "image/disk_format.h"
#include "image/ops/context.h"
#include "image/ops/create.h"

namespace sluicebox::image {

struct MeasureOptions {
  // Of the file to be made. With a backing nobody knows how much the source shares with that: nothing, it is supposed.
  CreateOptions target;
  // Either what is to be converted, with its own format where that must not be probed, and maybe only what one of its
  // snapshots kept, by id or name; or, without, an empty disk of the target's size.
  std::optional<std::string> source = std::nullopt;
  std::optional<DiskFormat> source_format = std::nullopt;
  std::optional<std::string> snapshot = std::nullopt;
  bool shared = false;  // the source is read although another program writes it
};

struct MeasuredSizes {
  std::uint64_t required = 0;         // with the data that there is now
  std::uint64_t fully_allocated = 0;  // with data everywhere
  // What the source's bitmaps would take beside that; nothing where source or target have none.
  std::optional<std::uint64_t> bitmaps = std::nullopt;
};

// The numbers of qemu-img's measure. kUnsupported for formats that it does not measure either.
Result<MeasuredSizes> measure_image(const MeasureOptions& options, OperationContext& context);

}  // namespace sluicebox::image
