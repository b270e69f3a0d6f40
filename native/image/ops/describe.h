// describe.h: what one open image tells about itself.
// Knows: one layer. Opens and reads nothing more.
// Threads: one operation's thread.
#pragma once

#include <string>

#include "base/result.h"
#include "image/block.h"
#include "image/file.h"
#include "image/image_info.h"

namespace sluicebox::image {

// `backing->exists` is left false: whether the file system may be asked is the caller's to know.
Result<ImageInfo> describe(const std::string& path, const File& file, const Block& block);

}  // namespace sluicebox::image
