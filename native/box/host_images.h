// host_images.h: this host's programs as images that virtual machines start from, kept in the home: one for each state
// that the host was in, read by all boxes that were made then.
// Knows: the home's layout, the keeper's jobs of host_image.h. Does not know: QEMU, what of the host is in one.
// Threads: any; between processes a lock in the file system says who makes one.
//
// HOME/hosts/lock            flock: held while one is made, and what nobody needs any more is dropped
// HOME/hosts/view/           empty: who looks at the host has it mounted there, out of everybody's sight
// HOME/hosts/KEY/root.erofs  whole; the directory's time is when a box was last made from it
// HOME/hosts/KEY.new/        being made, or what a killed maker left
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/cancel.h"
#include "base/progress.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace sluicebox::box {

class HostImages {
 public:
  // Most that are kept without a box of theirs, those last used.
  static constexpr std::size_t kMost = 2;

  // `keeper`: its path.
  HostImages(std::string home, std::string keeper) : home_(std::move(home)), keeper_(std::move(keeper)) {}

  // What this host lacks for it.
  static std::optional<Error> missing();

  // The path of an image of the host as it is now, made where there is none yet. kUnsupported without mkfs.erofs;
  // kNoSpace, which says how much it takes; kInUse when the host's programs change as fast as they are read.
  Result<std::string> take(const CancelToken& cancel, ProgressSink& progress) const;

 private:
  struct State {
    std::string key;
    std::uint64_t bytes = 0;
  };
  Result<State> look(const CancelToken& cancel) const;
  std::string path_of(const std::string& key) const;
  bool touch(const std::string& key) const;
  Result<UniqueFd> lock(const CancelToken& cancel) const;
  std::uint64_t free_room() const;
  Error no_room(std::uint64_t bytes) const;
  Result<bool> make(const State& state, const CancelToken& cancel, ProgressSink& progress) const;
  void drop_leftovers(int hosts) const;
  void drop_unused(int hosts) const;
  std::string hosts() const { return home_ + "/hosts"; }
  std::string view() const { return hosts() + "/view"; }

  const std::string home_;
  const std::string keeper_;
};

}  // namespace sluicebox::box
