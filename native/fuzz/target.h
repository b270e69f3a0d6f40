// target.h: what every fuzz target is made of: one look at an input, and what stops it.
// Knows: bytes. Does not know: what is looked at.
// Threads: one.
#pragma once

#include <cstdio>
#include <cstdlib>

#include "base/bytes.h"

namespace sluicebox::fuzz {

// Each target's own. Returns whether its deepest assertion ran: target.cc counts, and a target of which no input gets
// so far fails.
bool try_input(Bytes input);

inline void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "broken: %s\n", what);
  std::abort();
}

}  // namespace sluicebox::fuzz
