// host_state.h: what a box with the host's root takes from the host once, to tell later whether it is still so.
// Knows: the lists of host_etc.h and host_view.h. Does not know: boxes.
// Threads: the keeper's one.
#pragma once

#include <ctime>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace sluicebox::walls {

class HostState {
 public:
  static Result<HostState> now();
  // Nothing was mounted or unmounted, and no file or link that is copied is another.
  bool holds() const;

 private:
  struct Fact {
    bool there = false;
    unsigned long inode = 0;
    timespec changed{};
    bool operator==(const Fact& other) const {
      return there == other.there && inode == other.inode && changed.tv_sec == other.changed.tv_sec &&
             changed.tv_nsec == other.changed.tv_nsec;
    }
  };
  static std::vector<Fact> look();

  UniqueFd mounts_;
  std::vector<Fact> facts_;
};

}  // namespace sluicebox::walls
