// disk_reader.h: the guest's bytes of one image, without its backing.
// Knows: an open image, compressed clusters. Does not know: other layers, how anything is changed.
// Threads: as block.h, read side.
#pragma once

#include <cstdint>

#include "base/bytes.h"
#include "base/result.h"
#include "image/formats/qcow2/compressed.h"
#include "image/formats/qcow2/image_state.h"

namespace sluicebox::image::qcow2 {

inline Compression compression_of(const ImageState& image) {
  return static_cast<Compression>(image.header.compression_type);
}

// Zeros where the image has nothing. The range is within the L1 table.
Status read_disk(ImageState& image, std::uint64_t offset, MutableBytes out);

}  // namespace sluicebox::image::qcow2
