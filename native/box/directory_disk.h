// directory_disk.h: a disk that holds a directory's files, made without root and without a mount.
// Knows: mkfs.ext4. Does not know: boxes, images with metadata of their own.
// Threads: a worker's, which waits for the program.
#pragma once

#include <cstdint>
#include <string>

#include "base/cancel.h"
#include "base/result.h"

namespace sluicebox::box {

// A raw image at `image` (which is not there yet) with an ext4 file system of the directory's files: of `size` bytes,
// or for 0 with room for as much again as they take. kUnsupported without mkfs.ext4; kNoSpace when they do not fit.
// Source: e2fsprogs, mke2fs(8), -d and the extended options.
Status make_directory_disk(const std::string& directory, const std::string& image, std::uint64_t size,
                           const CancelToken& cancel);

}  // namespace sluicebox::box
