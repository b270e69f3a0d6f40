// measure.h: how large a qcow2 file gets.
// Knows: the format's layout. Does not know: files, images. The counts are QEMU's (qcow2_measure), metadata of the
// fully allocated file included, so that both tools tell the same.
// Threads: pure functions.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "image/formats/qcow2/layout.h"
#include "image/persistent_bitmap.h"

namespace sluicebox::image::qcow2 {

struct FileSizes {
  std::uint64_t required = 0, fully_allocated = 0;
};

// Of a disk of `disk_bytes`, of which `data_bytes` (whole clusters) hold data. kInvalidArgument for a disk that
// clusters of this size cannot map.
Result<FileSizes> measure_file(const Geometry& geometry, std::uint64_t disk_bytes, std::uint64_t data_bytes);

// What those bitmaps of a disk of `disk_bytes` take in a file of this shape, if all their bits are stored.
std::uint64_t measure_bitmaps(const Geometry& geometry, std::uint64_t disk_bytes,
                              const std::vector<PersistentBitmap>& bitmaps);

}  // namespace sluicebox::image::qcow2
