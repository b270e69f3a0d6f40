// printable.h: a file name as it may stand in a message: quoted, control characters escaped, cut when very long.
// Knows: bytes. Names come from images and callers, and messages end in terminals and logs.
// Threads: any.
#pragma once

#include <string>
#include <string_view>

namespace sluicebox::image {

std::string printable(std::string_view name);

}  // namespace sluicebox::image
