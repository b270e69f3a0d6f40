// bytes.h: borrowed byte ranges, and the one way to read and write integers of a stated byte order.
// Knows: nothing. Works at any alignment, on any host byte order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>

namespace sluicebox {

using Bytes = std::span<const std::byte>;
using MutableBytes = std::span<std::byte>;

namespace detail {

template <typename T>
constexpr T load(const std::byte* at, bool big_endian) {
  static_assert(std::is_unsigned_v<T>);
  T value = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    const std::size_t shift = 8 * (big_endian ? sizeof(T) - 1 - i : i);
    value = static_cast<T>(value | (static_cast<T>(std::to_integer<std::uint8_t>(at[i])) << shift));
  }
  return value;
}

template <typename T>
constexpr void store(std::byte* at, T value, bool big_endian) {
  static_assert(std::is_unsigned_v<T>);
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    const std::size_t shift = 8 * (big_endian ? sizeof(T) - 1 - i : i);
    at[i] = static_cast<std::byte>(static_cast<std::uint8_t>(value >> shift));
  }
}

}  // namespace detail

inline std::uint16_t load_be16(const std::byte* at) { return detail::load<std::uint16_t>(at, true); }
inline std::uint32_t load_be32(const std::byte* at) { return detail::load<std::uint32_t>(at, true); }
inline std::uint64_t load_be64(const std::byte* at) { return detail::load<std::uint64_t>(at, true); }
inline std::uint16_t load_le16(const std::byte* at) { return detail::load<std::uint16_t>(at, false); }
inline std::uint32_t load_le32(const std::byte* at) { return detail::load<std::uint32_t>(at, false); }
inline std::uint64_t load_le64(const std::byte* at) { return detail::load<std::uint64_t>(at, false); }

inline void store_be16(std::byte* at, std::uint16_t value) { detail::store(at, value, true); }
inline void store_be32(std::byte* at, std::uint32_t value) { detail::store(at, value, true); }
inline void store_be64(std::byte* at, std::uint64_t value) { detail::store(at, value, true); }
inline void store_le16(std::byte* at, std::uint16_t value) { detail::store(at, value, false); }
inline void store_le32(std::byte* at, std::uint32_t value) { detail::store(at, value, false); }
inline void store_le64(std::byte* at, std::uint64_t value) { detail::store(at, value, false); }

inline Bytes as_bytes(std::string_view text) { return std::as_bytes(std::span(text.data(), text.size())); }

// memcmp against zero, a word at a time where the compiler can.
inline bool all_zero(Bytes bytes) {
  if (bytes.empty()) return true;
  return bytes[0] == std::byte{0} && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0;
}

}  // namespace sluicebox
