// templates.h: machines that have just booted, kept on disk by what they are made of: the next like box goes on from
// one. Knows: files, digests. Does not know: QEMU, boxes. Threads: any. Between processes a lock in the file system
// says who makes one.
//
// DIR/KEY/template.json  written last: what the machine was made of, and a digest of each other file
// DIR/KEY/state          what QEMU wrote of its memory and devices
// DIR/KEY/disk0.qcow2    what the boot wrote to a disk that has an overlay
// DIR/KEY.new/lock       flock: held by who makes it; the directory becomes KEY when it is whole
//
// It is a cache: whatever is wrong with it, the box boots by itself.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "box/ingredients.h"

namespace sluicebox::box {

class Templates {
 public:
  // Most that are kept, those last used.
  static constexpr std::size_t kMost = 8;

  // One that is whole, as far as was looked.
  struct Entry {
    std::string key;
    std::string id;  // of this very one: a rebuilt one has another
    UniqueFd directory;
    UniqueFd state;
    std::string state_digest;
    std::vector<std::string> disk_digests;  // one a disk; empty: it has no overlay
  };

  // One that is being made: taken away again unless it was finished. A killed maker's is taken over by the next.
  class Making {
   public:
    Making(std::string path, std::string key, UniqueFd directory, UniqueFd lock);
    ~Making();
    Making(Making&&) = default;
    Making& operator=(Making&&) = delete;

    // To be written to.
    Result<UniqueFd> state();
    // The overlays of the box.
    Status add_disks(int box_directory, const std::vector<DiskRecord>& disks);
    // kInUse when somebody else was first.
    Status finish(const Ingredients& of);

   private:
    std::string path_;  // of all templates
    std::string key_;
    UniqueFd directory_;
    UniqueFd lock_;
    UniqueFd state_;
    std::vector<std::string> disk_digests_;
  };

  // Its directory is made when there is something to keep. kPermission for one that others can write to.
  explicit Templates(std::string path) : path_(std::move(path)) {}

  std::optional<Entry> find(const Ingredients& of) const;
  // The disk's overlay under a name in the box's directory. kIo for one that is not what was written.
  static Status copy_disk(const Entry& entry, std::size_t disk, int box_directory, const std::string& name);
  // One that was of no use.
  void drop(const Entry& entry) const;
  // Nothing while another process makes it, or has; and where there is no room for it: on a disk that would be full, or
  // in memory, which the machine that is written down would have to pay for. `memory`: how much the machine has.
  Result<std::optional<Making>> make(const Ingredients& of, std::uint64_t memory) const;

 private:
  const std::string path_;
};

}  // namespace sluicebox::box
