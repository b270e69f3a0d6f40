// parent.h: the name of the image that a differencing VHD stands on, out of its locators.
// Knows: locators. Does not know: whether that image is there, or is the right one.
// Threads: pure but for what it reads of the file.
#pragma once

#include <optional>
#include <string>

#include "base/result.h"
#include "image/file.h"
#include "image/formats/vhd/dynamic_header.h"

namespace sluicebox::image::vhd {

// The relative name first, for images are moved together; then a file URL; then the absolute name of Windows, of which
// only the file's own name means anything here; then the header's. Nothing where none of them is a name.
Result<std::optional<std::string>> parent_path(const File& file, const DynamicHeader& header);

}  // namespace sluicebox::image::vhd
