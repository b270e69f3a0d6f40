// image_info.h: what an operation tells about an image.
// Knows: layers' info. Threads: a value.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "image/block.h"
#include "image/disk_format.h"

namespace sluicebox::image {

struct BackingInfo {
  std::string path;           // as recorded
  std::string resolved_path;  // against the overlay's directory
  std::optional<std::string> format;
  bool exists = false;  // asked of the file system without opening the file
};

struct ImageInfo {
  std::string path;
  DiskFormat format = DiskFormat::kRaw;
  std::uint64_t virtual_bytes = 0;
  std::uint64_t allocated_bytes = 0;
  LayerInfo layer;
  std::optional<BackingInfo> backing;
  std::vector<ImageInfo> chain;  // only if asked for: this image first, then its backing, and so on
};

}  // namespace sluicebox::image
