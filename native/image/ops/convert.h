// convert.h: writes what a guest reads of one image into a new one, of any format, or into one that is there.
// Knows: chains, create, the block interface. Does not know: how formats store bytes. Threads: one worker a call, and
// those that it reads and compresses with.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/result.h"
#include "image/disk_format.h"
#include "image/image_info.h"
#include "image/ops/context.h"
#include "image/ops/create.h"
#include "image/salvaged_disk.h"

namespace sluicebox::image {

// An image that is there already, or a block device: its beginning is written over in place.
struct ConvertInto {
  std::optional<DiskFormat> format = std::nullopt;
  bool is_zero = false;  // the caller knows that it reads as zeros: where the source does, nothing is written
};

struct ConvertOptions {
  // Of a new image, its size: absent, the source's. With a backing, only what differs from that is written.
  std::variant<CreateOptions, ConvertInto> target;
  std::optional<DiskFormat> source_format = std::nullopt;  // of each
  bool shared = false;  // the source is read although another program writes it: what is written may be torn
  std::optional<std::string> snapshot = std::nullopt;  // of the source, by id or name: what it kept is converted
  bool salvage = false;                                // what cannot be read of the source becomes zeros, and is told
  bool compress = false;
  unsigned parallel = 0;  // threads; 0: one a core, up to 4. The file is the same whatever it is
  // So many zeros, aligned, become a hole: a power of two of at least 512; 0: everything is written.
  std::uint64_t sparse_size = 4096;
};

struct Converted {
  ImageInfo target;
  std::optional<UnreadableParts> unreadable = std::nullopt;  // of the source, when it was to be salvaged
};

// Several sources are joined, one after the other, and then the target has no backing, and none is a snapshot's.
// Killed or cancelled at any point, a new target is as it was before, or the whole new image; one that was there is
// sound, and holds a part of the source. Phase reported: "convert", in bytes of the disk.
Result<Converted> convert_image(const std::vector<std::string>& sources, const std::string& target,
                                const ConvertOptions& options, OperationContext& context);

}  // namespace sluicebox::image
