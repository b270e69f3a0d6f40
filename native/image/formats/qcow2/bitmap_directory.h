// bitmap_directory.h: an image's persistent bitmaps: what they are called, and where they lie in the file. Their bits
// are not read. Knows: the qcow2 specification, section "Bitmaps". Threads: pure functions over an open image.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "image/formats/qcow2/image_state.h"

namespace sluicebox::image::qcow2 {

struct HostRange {
  std::uint64_t offset = 0, bytes = 0;
};

// Empty without bitmaps, and when a program that knows none has written since: they mean nothing then. kImageCorrupt
// for a directory that is impossible.
Result<std::vector<PersistentBitmap>> read_bitmaps(const ImageState& image);

// The directory, the bitmaps' tables and their data; empty without bitmaps. kImageCorrupt when any of it is impossible.
Result<std::vector<HostRange>> read_bitmap_ranges(const ImageState& image);

}  // namespace sluicebox::image::qcow2
