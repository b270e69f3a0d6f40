// new_file.h: a file that appears under its name whole, or not at all.
// Knows: directories, links, policy, image locks. Does not know: what is written into it.
// Threads: one operation's thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "image/file.h"
#include "image/ops/context.h"

namespace sluicebox::image {

class NewFile {
 public:
  // kAnonymous (O_TMPFILE) leaves nothing behind even when the process is killed; kNamed is for file systems without
  // it.
  enum class Staging : std::uint8_t { kAnonymous, kNamed };

  // Without `overwrite` an existing path is kImageExists; with it, an image in use is kImageLocked, and stays locked
  // until it is replaced.
  static Result<NewFile> begin(const std::string& path, bool overwrite, OperationContext& context,
                               Staging staging = Staging::kAnonymous);
  NewFile(NewFile&&) = default;
  NewFile& operator=(NewFile&&) = delete;
  ~NewFile();

  File& file() { return *file_; }
  // Of the file that will be replaced; nothing when there is none.
  const std::optional<FileIdentity>& replaced() const { return replaced_; }
  // Syncs, commits the cancel token, gives the file its name and syncs the directory. Never replaces a file unless
  // `overwrite`, and then
  // only the one that was there at begin(), whose owner, mode and attributes it takes on.
  Status publish(CancelToken& cancel);
  // For files that appear together: before publish(), that what it replaces is kept aside until this goes; and after
  // it, that the file goes, and what it replaced comes back. Best effort: there is nobody left to tell.
  void keep_replaced() { keeps_replaced_ = true; }
  void retract();

  const std::string& path() const { return path_; }  // of the file that appears: a symlink to an old one is followed

 private:
  NewFile() = default;
  Status open_staging(Staging staging);
  Status link_anonymous();
  Status rename_staged();
  Status name_staged();
  Status exchange();
  Status keep_rights();
  Error appeared() const;

  std::string path_;         // where it goes, for messages
  std::string name_;         // its last part
  std::string staged_name_;  // in the same directory; empty while anonymous or published
  std::string aside_name_;   // of the file that was replaced, while it is kept
  bool keeps_replaced_ = false, published_ = false;
  bool overwrite_ = false;
  UniqueFd directory_;
  UniqueFd fd_;  // another descriptor of what file_ writes
  std::unique_ptr<File> file_;
  std::unique_ptr<File> old_;  // held for its lock
  int old_fd_ = -1;            // of old_
  std::optional<FileIdentity> replaced_;
};

}  // namespace sluicebox::image
