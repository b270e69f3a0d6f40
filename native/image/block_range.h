// block_range.h: which ranges of a disk a block may be asked for.
// Knows: numbers. Does not know: formats.
// Threads: pure.
#pragma once

#include <cstdint>

#include "base/checked.h"
#include "base/result.h"

namespace sluicebox::image {

// kInvalidArgument when the range reaches past `end`.
inline Status check_range(std::uint64_t offset, std::uint64_t length, std::uint64_t end) {
  const auto reached = checked_add(offset, length);
  if (reached && *reached <= end) return {};
  return Error(ErrorCode::kInvalidArgument, "the range reaches past the end of the disk");
}

// kInvalidArgument unless the range, which lies inside the disk, is of whole units; the last one may be cut by its end.
inline Status check_whole_units(std::uint64_t offset, std::uint64_t length, std::uint64_t unit,
                                std::uint64_t disk_bytes) {
  if (offset % unit == 0 && (length % unit == 0 || offset + length == disk_bytes)) return {};
  return Error(ErrorCode::kInvalidArgument, "a write must cover whole allocation units");
}

}  // namespace sluicebox::image
