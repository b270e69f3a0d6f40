// raw.h: a raw file or block device as a Block.
// Knows: one file. Threads: as block.h.
#pragma once

#include <memory>

#include "base/result.h"
#include "image/block.h"
#include "image/file.h"

namespace sluicebox::image::raw {

// `file` outlives the block. The size is the file's, rounded up to 512 as QEMU does.
Result<std::unique_ptr<Block>> open_raw(File& file, bool writable);

}  // namespace sluicebox::image::raw
