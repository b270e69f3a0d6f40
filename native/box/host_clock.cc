#include "box/host_clock.h"

#include <time.h>

#include <limits>

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

namespace sluicebox::box {

#if defined(__x86_64__)

namespace {

constexpr std::uint64_t kSpan = 20'000'000;  // ns
constexpr int kTries = 32;

struct Sample {
  std::uint64_t ns = 0;
  std::uint64_t ticks = 0;
};

std::uint64_t now_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC_RAW, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(now.tv_nsec);
}

// Both clocks at one moment: the try whose two looks at the counter lie closest together was not interrupted.
Sample sample() {
  Sample best;
  std::uint64_t closest = std::numeric_limits<std::uint64_t>::max();
  for (int i = 0; i < kTries; ++i) {
    const std::uint64_t before = __rdtsc();
    const std::uint64_t ns = now_ns();
    const std::uint64_t after = __rdtsc();
    if (after - before >= closest) continue;
    closest = after - before;
    best = {.ns = ns, .ticks = before + (after - before) / 2};
  }
  return best;
}

std::optional<std::uint64_t> measure() {
  const Sample first = sample();
  timespec rest{.tv_sec = 0, .tv_nsec = static_cast<long>(kSpan)};
  while (::nanosleep(&rest, &rest) != 0) {
  }
  const Sample last = sample();
  const std::uint64_t ns = last.ns - first.ns;
  const std::uint64_t ticks = last.ticks - first.ticks;
  // From 100 MHz to 20 GHz it is a time stamp counter; anything else is something in between that makes one up.
  const std::uint64_t khz = ns == 0 ? 0 : ticks * 1'000'000 / ns;
  if (khz < 100'000 || khz > 20'000'000) return std::nullopt;
  return khz;
}

}  // namespace

std::optional<std::uint64_t> time_stamp_khz() {
  static const std::optional<std::uint64_t> khz = measure();
  return khz;
}

#else

std::optional<std::uint64_t> time_stamp_khz() { return std::nullopt; }

#endif

}  // namespace sluicebox::box
