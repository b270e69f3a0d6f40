// open_file.h: opens a file as a disk image may be opened: what was examined is what is read.
// Knows: path policy, kinds of files. Does not know: formats, locks, chains.
// Threads: any.
#pragma once

#include <fcntl.h>

#include <memory>
#include <string>
#include <vector>

#include "base/path_policy.h"
#include "base/result.h"
#include "image/file.h"

namespace sluicebox::image {

// Whose word led to the path. A caller's path is free (unless the policy restricts callers) and may be a block device;
// an image's must be a regular file in one of the policy's directories or, unless the policy restricts callers, in one
// of the image's own; or be one of `also_named`.
struct NamedBy {
  bool caller = true;
  std::vector<int> own_directories = {};      // of the image: open descriptors, for what they were opened on counts
  std::vector<FileIdentity> also_named = {};  // files that the caller named in the same call
  int start = AT_FDCWD;                       // the directory where a relative path starts
  std::string shown = {};                     // the path in messages; empty: as it is
};

// Where an image lies, held open so that what it names is looked for there, whatever its path leads to by now.
struct ImageDirectories {
  UniqueFd named;  // the directory of its path as it was given: relative paths start there
  UniqueFd home;   // the one where a symlink's target really lies; not valid where that is the same

  std::vector<int> open() const;
};

// A file that was found and judged, but not opened for I/O yet: it holds an O_PATH descriptor, so nothing blocked.
class FoundFile {
 public:
  static Result<FoundFile> find(const std::string& path, const NamedBy& named_by, const PathPolicy& policy);

  const FileIdentity& identity() const { return identity_; }
  bool is_regular() const { return regular_; }
  // The absolute path with symlinks resolved.
  const std::string& resolved_path() const { return resolved_path_; }
  // Opens the very file that was judged, whatever its path leads to by now.
  Result<std::unique_ptr<PosixFile>> open(bool writable) const;
  // The path leads to the file that was judged, still.
  bool still_named() const;
  ImageDirectories take_directories() { return std::move(directories_); }

 private:
  Status look_up(const std::string& path, const NamedBy& named_by, const PathPolicy& policy);
  void find_home();

  UniqueFd fd_;
  ImageDirectories directories_;
  std::string name_;  // in directories_.named
  std::string path_;  // for messages
  std::string resolved_path_;
  FileIdentity identity_;
  bool regular_ = false;
};

// A reference that QEMU takes for a protocol or a JSON description: a colon before the first slash.
bool has_protocol(const std::string& reference);
// kInvalidArgument for a backing that a caller named and that would be read as a protocol.
Status require_file_reference(const std::string& reference);

// The folder of a path: all before the last slash, "." where there is none. And what follows that slash.
std::string directory_of(const std::string& path);
std::string last_part(const std::string& path);
// The folder of a path, open.
Result<UniqueFd> open_directory_of(const std::string& path);

}  // namespace sluicebox::image
