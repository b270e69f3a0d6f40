// small_file.h: files of a line or a page, read and written whole.
// Knows: files. Threads: any.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace sluicebox::agent {

// Nothing when it cannot be read or is not a plain file (a FIFO in its place must not hold the agent up). At most 64
// KiB.
std::optional<std::string> read_small(const std::string& path);

// Into a file that is there, as one write: what the kernel's own files want. 0 or errno.
int write_into(const std::string& path, std::string_view text);

// Puts a file with that text in the place of the one that is there, unless it says that already; anything but a plain
// file stays as it is. 0 or errno.
int replace_small(const std::string& path, std::string_view text);

}  // namespace sluicebox::agent
