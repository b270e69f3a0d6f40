// open_file.h: opens a file as a disk image may be opened: what was examined is what is read.
// Knows: path policy, kinds of files. Does not know: formats, locks, chains.
// Threads: any.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/path_policy.h"
#include "base/result.h"
#include "image/file.h"

namespace sluicebox::image {

// Whose word led to the path. A caller's path is free (unless the policy restricts callers) and may be a block device;
// an image's must be a regular file in one of `allowed_directories`, in the policy's, or be one of `also_named`.
struct NamedBy {
  bool caller = true;
  std::vector<std::string> allowed_directories = {};  // absolute, resolved
  std::vector<FileIdentity> also_named = {};          // files that the caller named in the same call
};

// A file that was found and judged, but not opened for I/O yet: it holds an O_PATH descriptor, so nothing blocked.
class FoundFile {
 public:
  static Result<FoundFile> find(const std::string& path, const NamedBy& named_by, const PathPolicy& policy);

  const FileIdentity& identity() const { return identity_; }
  // The absolute path with symlinks resolved.
  const std::string& resolved_path() const { return resolved_path_; }
  // Opens the very file that was judged, whatever its path leads to by now.
  Result<std::unique_ptr<PosixFile>> open(bool writable) const;

 private:
  UniqueFd fd_;
  std::string path_;
  std::string resolved_path_;
  FileIdentity identity_;
};

// A reference that QEMU takes for a protocol or a JSON description: a colon before the first slash.
bool has_protocol(const std::string& reference);
// kInvalidArgument for a backing that a caller named and that would be read as a protocol.
Status require_file_reference(const std::string& reference);

// The folder of a path: all before the last slash, "." where there is none.
std::string directory_of(const std::string& path);

}  // namespace sluicebox::image
