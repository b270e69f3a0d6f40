// map.h: the map of an image's chain, a bounded part at a time.
// Knows: the chain, its walk. Does not know: who puts the parts together. Threads: one worker a call.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "image/ops/context.h"
#include "image/ops/map_walk.h"

namespace sluicebox::image {

struct MapOptions {
  std::optional<DiskFormat> format = std::nullopt;
  std::uint64_t start = 0;
  std::optional<std::uint64_t> length = std::nullopt;  // absent: to the end of the disk
  std::size_t most_extents = 1;
  bool shared = false;  // read although another program writes it: what comes of it may be torn
};

// Extents as long as they can be, but where the range asked for cuts them. `next` is where the following part begins;
// absent at the end. The image is open, and locked, during one call only.
struct MapPart {
  std::vector<MapExtent> extents;
  std::optional<std::uint64_t> next;
};

Result<MapPart> map_image(const std::string& path, const MapOptions& options, OperationContext& context);

}  // namespace sluicebox::image
