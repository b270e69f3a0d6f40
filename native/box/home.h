// home.h: the directory that a runtime keeps its boxes in: one directory a box, its record, its lock.
// Knows: files, records. Does not know: how a box runs.
// Threads: any; what two processes must not do at once happens under the home's own lock.
//
// HOME/lock                  flock: held while names are looked up and given
// HOME/boxes/ID/record.json  replaced by rename
// HOME/boxes/ID/lock         flock: held by the box's keeper as long as it lives, before by who makes or starts it
// HOME/boxes/ID/cgroups      the cgroup directories that the keeper made, one a line
// HOME/boxes/ID/layer/       a kept box's private layer
// HOME/hosts/                see host_images.h
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "box/record.h"

namespace sluicebox::box {

class Home {
 public:
  // Makes it, 0700, when it is not there. kPermission for one that is a symlink, another user's, or writable by others.
  static Result<Home> open(const std::string& path);

  struct Entry {
    BoxRecord record;
    bool running = false;  // some keeper holds its lock
  };
  // Every box there is. A record that cannot be read is set aside (record.json.damaged) and told by `problem`.
  Result<std::vector<Entry>> list(const std::function<void(const Error&)>& problem) const;
  // By id, or by name. kBoxNotFound.
  Result<Entry> find(const std::string& id_or_name) const;
  // A box's directory and its lock. Whoever starts the box hands both to the keeper, so that the lock is never free in
  // between.
  struct Held {
    UniqueFd directory;
    UniqueFd lock;
    // For one that nobody was given: the lock is free at once, also where a process that is just being started has a
    // copy of every descriptor.
    void let_go();
  };
  // A new box's, with its record. kBoxExists for a name that another box has.
  Result<Held> add(const BoxRecord& record) const;
  // kInUse while a keeper or another process holds it.
  Result<Held> hold(const std::string& id) const;
  Status update(const BoxRecord& record) const;
  Result<UniqueFd> directory(const std::string& id) const;
  // Everything of the box that is on disk, and the cgroups that its keeper left. Never follows a link, never crosses a
  // mount. kInUse while a keeper holds its lock. Nothing to remove is no error.
  Status remove(const std::string& id) const;
  // What a killed keeper left of a box that is kept: its cgroups. Nothing is done to one that runs.
  Status tidy(const std::string& id) const;
  // Removes what dead owners left: boxes that were not to be kept and that nobody runs, half-made directories.
  Status recover() const;

  const std::string& path() const { return path_; }
  // Of a box's directory; for people, and for images in it.
  std::string path_of(const std::string& id) const { return path_ + "/boxes/" + id; }

 private:
  Home(std::string path, UniqueFd home, UniqueFd boxes)
      : path_(std::move(path)), home_(std::move(home)), boxes_(std::move(boxes)) {}

  Result<UniqueFd> lock() const;
  Result<std::vector<std::string>> ids() const;
  Result<Entry> entry(const std::string& id) const;
  Status write_record(int directory, const BoxRecord& record) const;

  std::string path_;
  UniqueFd home_;
  UniqueFd boxes_;
};

}  // namespace sluicebox::box
