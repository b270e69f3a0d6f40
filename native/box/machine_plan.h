// machine_plan.h: what QEMU is told of a machine, by its record and its open disks.
// Knows: QEMU's command line. Does not know: how QEMU is started, what a boot adds.
// Threads: any.
#pragma once

#include <cstdint>
#include <vector>

#include "box/disks.h"
#include "box/qemu_command.h"
#include "box/record.h"

namespace sluicebox::box {

// QEMU's descriptors by their numbers there, which begin after stdio's.
class Passed {
 public:
  int add(int fd) {
    descriptors_.push_back(fd);
    return static_cast<int>(descriptors_.size()) + 2;
  }
  // With what stdio needs ahead of them.
  std::vector<int> with_output(int output) const {
    std::vector<int> all = {output};
    all.insert(all.end(), descriptors_.begin(), descriptors_.end());
    return all;
  }
  std::uint32_t count() const { return static_cast<std::uint32_t>(descriptors_.size()); }

 private:
  std::vector<int> descriptors_;
};

QemuPlan machine_plan(const BoxRecord& record, const std::vector<OpenDisk>& disks, Passed& passed);

// Of the layer in memory over a root that nobody may write to; 0: the root is written to.
std::uint64_t layer_bytes(const BoxRecord& record);

}  // namespace sluicebox::box
