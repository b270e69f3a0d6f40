// guid.h: the 16 bytes by which disk images know each other.
// Knows: random numbers of the kernel. Does not know: formats, or the byte order that one shows them in.
// Threads: any; a value.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"

namespace sluicebox::image {

using Guid = std::array<std::byte, 16>;

// A random one, as RFC 4122 has them (version 4).
Result<Guid> random_guid();

inline Guid load_guid(const std::byte* at) {
  Guid guid;
  std::memcpy(guid.data(), at, guid.size());
  return guid;
}
inline void store_guid(std::byte* at, const Guid& guid) { std::memcpy(at, guid.data(), guid.size()); }
inline bool is_nil(const Guid& guid) { return guid == Guid{}; }

// 8-4-4-4-12 digits, in lower case: of bytes in the order of the text (VHD), or with the first three groups in little
// endian (VHDX).
std::string guid_text(const Guid& guid, bool little_endian);
// What guid_text() wrote; nothing for any other text.
std::optional<Guid> guid_from_text(std::string_view text, bool little_endian);

}  // namespace sluicebox::image
