// thoroughness.h: how much is tried where everything would take minutes: all of it with SLUICEBOX_LONG=1.
#pragma once

#include <cstdlib>
#include <string_view>

namespace sluicebox::image::testing {

inline bool is_thorough() {
  const char* asked = std::getenv("SLUICEBOX_LONG");
  return asked != nullptr && std::string_view(asked) == "1";
}

}  // namespace sluicebox::image::testing
