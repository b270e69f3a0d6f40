// locks.h: QEMU's byte-range protocol for "who uses this image and how", both ways.
// Knows: one descriptor and fcntl's OFD locks. Does not know: formats, chains.
// Threads: any. Locks live as long as the open file description, whatever else of the file is closed.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"

namespace sluicebox::image {

enum class LockMode : std::uint8_t { kReader, kWriter };
enum class LockOutcome : std::uint8_t {
  kHeld,
  kUnavailable,  // the file system has no such locks (old NFS): nothing guards the image
};

// Takes {consistent read; not shared: write, resize} as a reader, {consistent read, write, resize; the same} as a
// writer. kImageLocked when another process (QEMU, qemu-img, another Sluicebox) or another operation here conflicts:
// nothing is held then. A descriptor open for reading is enough for both.
Result<LockOutcome> lock_image(int fd, LockMode mode, const std::string& path);

}  // namespace sluicebox::image
