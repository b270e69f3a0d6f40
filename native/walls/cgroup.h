// cgroup.h: the box's cgroups: made with their limits, joined, read, removed.
// Knows: cgroup files. Does not know: boxes, where its list is recorded.
// Threads: the keeper's one.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

namespace sluicebox::walls {

struct WantedLimit {
  std::uint64_t value = 0;  // 0: none
  bool asked = false;       // by the caller: then it holds, or nothing starts
};

struct CgroupLimits {
  WantedLimit memory_bytes;
  WantedLimit vcpus;
  WantedLimit processes;
};

class Cgroups {
 public:
  // Which directories the limits need on this host; nothing is made. kUnsupported: a limit that was asked for.
  static Result<Cgroups> plan(const std::string& name, const CgroupLimits& limits);

  const std::vector<std::string>& directories() const { return directories_; }
  // A limit each that this host does not give.
  const std::vector<std::string>& warnings() const { return warnings_; }

  // The directories, and every limit written and read back. What fails leaves its directories to remove().
  Status make();
  Status join(pid_t process) const;
  std::uint64_t oom_kills() const;
  // Once no process is left in them. What stays, and why.
  std::vector<std::string> remove();

 private:
  struct Setting {
    std::string directory;
    std::string file;
    std::string value;
    std::uint64_t slack;  // a kernel rounds bytes to pages
    bool optional;        // swap: not every kernel counts it
    std::size_t limit;    // row of kLimits
    bool asked;
  };
  Status apply(const Setting& setting) const;

  std::vector<std::string> directories_;
  std::vector<std::string> made_;
  std::vector<Setting> settings_;
  std::vector<std::string> warnings_;
  std::string oom_file_;
};

}  // namespace sluicebox::walls
