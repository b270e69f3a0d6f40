// utf16.h: names as Windows' disk formats store them.
// Knows: UTF-8 and UTF-16. Threads: pure functions.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"

namespace sluicebox::image {

// Up to a NUL, or to the end. Nothing for what is no text: half a pair, or an odd number of bytes.
std::optional<std::string> utf8_of_utf16(Bytes text, bool big_endian);
// Nothing for what is no UTF-8.
std::optional<std::vector<std::byte>> utf16_of_utf8(std::string_view text, bool big_endian);

// A path of Windows as one of ours: slashes for backslashes, "./" gone. A path that begins at a drive or a volume means
// nothing here: of that, the file's name alone, to be looked for beside the image.
std::string path_of_windows(std::string path);
// One of our paths as Windows writes it, a relative one from ".\\" or "..\\" on. Nothing for one that path_of_windows()
// would not give back: with a backslash or a NUL in it, or two slashes in front.
std::optional<std::string> windows_of_path(const std::string& path);

}  // namespace sluicebox::image
