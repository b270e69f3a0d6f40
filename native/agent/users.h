// users.h: who a process is to be: ids and groups from the box's own /etc/passwd and /etc/group.
// Knows: the two files' form. Does not know: processes. Uses no name service: that would load code of the box.
// Threads: one.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/messages.h"

namespace sluicebox::agent {

struct Identity {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;  // all that setgroups() is to set, the primary one first
};

// A file's text, read again when the file is another or has changed.
class WatchedFile {
 public:
  explicit WatchedFile(const char* path) : path_(path) {}
  // Empty if there is none, or it is not a regular file.
  std::string_view text();

 private:
  const char* path_;
  struct stat seen_{};
  std::string text_;
};

class Users {
 public:
  // Nothing: there is no such user. An id that no process can have is given back as it is.
  std::optional<Identity> find(const protocol::User& user);

 private:
  WatchedFile passwd_{"/etc/passwd"};
  WatchedFile group_{"/etc/group"};
};

}  // namespace sluicebox::agent
