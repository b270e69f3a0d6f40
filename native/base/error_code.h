// error_code.h: every code that native code can fail with, in one table.
// Knows: nothing. The SDK maps each row to a class of its own; a test walks the table through that map.
// Threads: constants only.
#pragma once

#include <cstdint>

namespace sluicebox {

// X(identifier, number, name). Numbers cross into JavaScript and are never reused.
#define SLUICEBOX_ERROR_CODES(X)                 \
  X(kInvalidArgument, 1, "invalid_argument")     \
  X(kUnsupported, 2, "unsupported")              \
  X(kClosed, 3, "closed")                        \
  X(kCancelled, 4, "cancelled")                  \
  X(kPermission, 5, "permission")                \
  X(kNoSpace, 6, "no_space")                     \
  X(kIo, 7, "io")                                \
  X(kOutOfMemory, 8, "out_of_memory")            \
  X(kInternal, 9, "internal")                    \
  X(kQueueFull, 10, "queue_full")                \
  X(kImageNotFound, 20, "image_not_found")       \
  X(kImageExists, 21, "image_exists")            \
  X(kImageFormat, 22, "image_format")            \
  X(kImageCorrupt, 23, "image_corrupt")          \
  X(kImageLocked, 24, "image_locked")            \
  X(kImageChain, 25, "image_chain")              \
  X(kImageTooSmall, 26, "image_too_small")       \
  X(kPathRefused, 27, "path_refused")            \
  X(kBoxNotFound, 40, "box_not_found")           \
  X(kBoxExists, 41, "box_exists")                \
  X(kBoxState, 42, "box_state")                  \
  X(kBoxStart, 43, "box_start")                  \
  X(kBoxLost, 44, "box_lost")                    \
  X(kInUse, 45, "in_use")                        \
  X(kHomeIncompatible, 46, "home_incompatible")  \
  X(kSnapshotNotFound, 47, "snapshot_not_found") \
  X(kSnapshotExists, 48, "snapshot_exists")      \
  X(kExecSpawn, 50, "exec_spawn")                \
  X(kExecLost, 51, "exec_lost")                  \
  X(kExecExists, 52, "exec_exists")              \
  X(kStdinClosed, 53, "stdin_closed")

enum class ErrorCode : std::int32_t {
#define X(identifier, number, name) identifier = number,
  SLUICEBOX_ERROR_CODES(X)
#undef X
};

constexpr const char* error_code_name(ErrorCode code) {
  switch (code) {
#define X(identifier, number, name) \
  case ErrorCode::identifier:       \
    return name;
    SLUICEBOX_ERROR_CODES(X)
#undef X
  }
  return "unknown";
}

}  // namespace sluicebox
