// locks.h: QEMU's byte-range protocol for "who uses this image and how", both ways.
// Knows: one descriptor, fcntl OFD locks, and a table of what this process holds. Does not know: formats, chains.
// Threads: any. Locks live as long as the open file description.
#pragma once

#include <string>

#include "base/result.h"
#include "image/file.h"

namespace sluicebox::image {

enum class LockMode { kReader, kWriter };

// Takes {consistent read; not shared: write, resize} as a reader, {consistent read, write, resize; the same} as a
// writer. kImageLocked when another process (QEMU, qemu-img, another Sluicebox) or another operation here conflicts:
// nothing is held then.
Status lock_image(int fd, LockMode mode, const std::string& path);

}  // namespace sluicebox::image
