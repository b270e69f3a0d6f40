// machine_memory.h: the memory of a machine that was, as others are made from it.
// Knows: memfd. Does not know: QEMU, boxes.
// Threads: any; what is sealed does not change any more.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace sluicebox::box {

// What a snapshot holds of it: one stream, as QEMU wrote it. Read from its beginning each time.
struct MemoryImage {
  std::string snapshot;  // its id
  std::string qemu;      // which one wrote it
  UniqueFd state;
  std::string digest = {};  // of the state; empty: it is taken as it is
};

// The same, ready to be mapped: every machine that is made from it shares what it does not write.
struct Template {
  UniqueFd memory;   // as large as the machine's
  UniqueFd devices;  // a stream
};

// A template that nobody used for so long goes.
inline constexpr std::chrono::seconds kTemplateAge{60};

// Zeros of that size, accounted to this process: whoever fills it pays nothing.
Result<UniqueFd> blank_memory(std::uint64_t size);
// Pages of zeros go, and nobody can change the rest any more. Nobody may have it mapped to write.
Status seal(const UniqueFd& memory, std::uint64_t size);
// A descriptor of the same file with a place of its own, at the beginning.
Result<UniqueFd> from_the_beginning(const UniqueFd& file);

}  // namespace sluicebox::box
