// persistent_bitmap.h: what is known of a bitmap that an image keeps, without its bits.
// Knows: nothing. Threads: plain data.
#pragma once

#include <cstdint>
#include <string>

namespace sluicebox::image {

// A bitmap of a disk's changed parts that an image keeps for its programs.
struct PersistentBitmap {
  std::string name;
  std::uint64_t granularity = 0;  // bytes of the disk that one bit stands for
  bool in_use = false;            // nobody has written it down since it changed: it means nothing
  bool automatic = false;         // whoever writes to the disk keeps it
};

}  // namespace sluicebox::image
