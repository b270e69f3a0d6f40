// host_image.h: what a box with the host's root sees of the host, for an image of it: told, or read by mkfs.erofs.
// Knows: the walls' view of the host, mkfs.erofs' command line. Does not know: boxes, where images are kept.
// Threads: one; a process of its own, for it takes itself a mount namespace.
//
// It is the view of the walls, built by them, so that an image never shows more than a box of namespaces does.
#pragma once

#include <span>

namespace sluicebox::keeper {

inline constexpr const char* kHostListJob = "--host-list";    // STAGE HOME: prints the key and the bytes
inline constexpr const char* kHostImageJob = "--host-image";  // STAGE HOME KEY MKFS: becomes MKFS, which writes to 3

// STAGE: an empty directory that the view is mounted on, for this process alone. HOME: where boxes are kept, which is
// not shown. What failed is said on stderr; kHostChanged: the view is not KEY's any more. The process' exit status.
inline constexpr int kHostChanged = 3;
int do_host_job(std::span<char*> arguments);

}  // namespace sluicebox::keeper
