// host_clock.h: how fast this machine's time stamp counter runs, which an emulated guest sees as its own.
// Knows: the counter, the monotonic clock. Does not know: guests. Threads: any.
#pragma once

#include <cstdint>
#include <optional>

namespace sluicebox::box {

// In kHz; measured once a process, which takes 20 ms. Nothing where there is no such counter, or no steady one.
// A guest that finds it out for itself compares it to a timer that QEMU serves when it has the processor: on a busy
// host it can be wrong by a factor, and all its clocks are.
std::optional<std::uint64_t> time_stamp_khz();

}  // namespace sluicebox::box
