// checked.h: arithmetic on sizes and offsets that a file or a caller chose: it never wraps.
// Knows: nothing. An empty optional is an overflow.
#pragma once

#include <cstdint>
#include <optional>

namespace sluicebox {

constexpr std::optional<std::uint64_t> checked_add(std::uint64_t a, std::uint64_t b) {
  std::uint64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) return std::nullopt;
  return sum;
}

constexpr std::optional<std::uint64_t> checked_mul(std::uint64_t a, std::uint64_t b) {
  std::uint64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product)) return std::nullopt;
  return product;
}

// `alignment` is not 0.
constexpr std::uint64_t align_down(std::uint64_t value, std::uint64_t alignment) { return value - value % alignment; }

constexpr std::optional<std::uint64_t> checked_align_up(std::uint64_t value, std::uint64_t alignment) {
  const std::uint64_t rest = value % alignment;
  return rest == 0 ? std::optional(value) : checked_add(value, alignment - rest);
}

// Cannot overflow: the quotient is never larger than the value.
constexpr std::uint64_t div_round_up(std::uint64_t value, std::uint64_t divisor) {
  return value / divisor + (value % divisor != 0 ? 1 : 0);
}

constexpr bool is_power_of_two(std::uint64_t value) { return value != 0 && (value & (value - 1)) == 0; }

}  // namespace sluicebox
