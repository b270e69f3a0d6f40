// parent.h: the name of the image that a differencing VHD stands on, out of its locators and into one.
// Knows: locators. Does not know: whether that image is there, or is the right one.
// Threads: pure but for what it reads of the file.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "image/file.h"
#include "image/formats/vhd/dynamic_header.h"

namespace sluicebox::image::vhd {

// The relative name first, for images are moved together; then a file URL; then the absolute name of Windows, of which
// only the file's own name means anything here; then the header's. Nothing where none of them is a name.
Result<std::optional<std::string>> parent_path(const File& file, const DynamicHeader& header);

// A path as one locator tells it: a relative one as Windows does, an absolute one as a file URL.
struct WrittenName {
  std::uint32_t code = 0;
  std::vector<std::byte> bytes;  // at most kMaxNameBytes
};
// kInvalidArgument for one that parent_path() would not give back.
Result<WrittenName> write_parent_path(const std::string& path);
// Names the parent in `header` by this locator alone, whose bytes lie at `offset`, where they have kMaxNameBytes.
void set_parent_name(DynamicHeader& header, const std::string& path, const WrittenName& name, std::uint64_t offset);

}  // namespace sluicebox::image::vhd
