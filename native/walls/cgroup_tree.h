// cgroup_tree.h: where on this host a box's cgroups may lie: v1, v2, or both at once.
// Knows: mountinfo, /proc/self/cgroup. Does not know: limits. Changes nothing.
// Threads: the keeper's one.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace sluicebox::walls {

struct Controller {
  int version = 0;   // 1 or 2; 0: this host has it nowhere
  std::string base;  // the directory that the box's own goes into
};

class CgroupTree {
 public:
  static Result<CgroupTree> of_this_process();
  // From the two tables' text, and from the files below `mountinfo`'s mount points.
  static CgroupTree parse(std::string_view mountinfo, std::string_view memberships);

  // "memory", "pids", "cpu".
  Controller find(std::string_view controller) const;

 private:
  struct Hierarchy {
    int version;
    std::string controllers;  // v1: with commas around
    std::string mount_point;
    std::string own;  // this process's directory
  };
  std::vector<Hierarchy> hierarchies_;
};

// What is in a small file of the kernel; empty when it cannot be read.
std::string read_small(const std::string& path);

}  // namespace sluicebox::walls
