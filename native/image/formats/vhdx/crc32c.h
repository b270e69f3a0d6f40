// crc32c.h: the checksum of VHDX's structures: CRC-32C (Castagnoli).
// Knows: bytes. Threads: pure functions.
#pragma once

#include <cstdint>

#include "base/bytes.h"

namespace sluicebox::image::vhdx {

// Of bytes in several parts: the first with 0, each other with what the one before it gave.
std::uint32_t crc32c(Bytes bytes, std::uint32_t before = 0);
// Of `bytes`, with the four at `skip` read as zeros, and then of zeros up to `length`.
std::uint32_t crc32c_padded(Bytes bytes, std::size_t skip, std::size_t length);

}  // namespace sluicebox::image::vhdx
