// ingredients.h: what a machine that has just booted is made of, so that like ones are found by it.
// Knows: records, disks, QEMU's command line. Does not know: where templates lie.
// Threads: any.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "box/disks.h"
#include "box/record.h"

namespace sluicebox::box {

// What a machine is made of: two like ones have the same text. Everything that its memory depends on is in it.
struct Ingredients {
  std::string text;
  // The host's counter, which the guest has measured its own by. Close by is the same.
  std::uint64_t time_stamp_khz = 0;
  std::string key() const;
};

// Everything that the memory of a machine depends on which has just booted, and that its overlays lie on. `boot_files`
// and `qemu` stand for the kernel and the initrd, and for the program.
Ingredients ingredients_of(const BoxRecord& record, const std::vector<OpenDisk>& disks, const std::string& boot_files,
                           const std::string& qemu);

// Whether there can be others like it. What is made for the box alone is like no other's; nor is a machine whose memory
// would take longer to read than to boot, or whose clock nothing is known of.
bool has_like_ones(const BoxRecord& record, const std::vector<OpenDisk>& disks);

}  // namespace sluicebox::box
