#include "walls/host_view.h"

#include <fcntl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <string>
#include <string_view>

#include "walls/failure.h"
#include "walls/host_etc.h"
#include "walls/mount.h"

namespace sluicebox::walls {

namespace {

// What is larger than any setting is not one.
constexpr off_t kLargestCopy = 1 << 20;

// A link of the host as it is, if there is one. EEXIST: a kept layer has its own by now.
Result<bool> copy_link(int from, const char* name, int to) {
  char target[PATH_MAX];
  const ssize_t length = ::readlinkat(from, name, target, sizeof target - 1);
  if (length < 0) return false;
  target[length] = '\0';
  if (::symlinkat(target, to, name) != 0 && errno != EEXIST) return failure(errno, "copy a link of the host", name);
  return true;
}

Status show_programs(int root, int host) {
  for (const char* name : kHostPrograms) {
    if (TRY(copy_link(host, name, root))) continue;
    auto tree = clone_tree(host, name, kReadOnly, Depth::kAll);
    if (!tree.ok() && tree.error().os_error == ENOENT) continue;
    if (!tree.ok()) return std::move(tree).error();
    TRY(attach(tree.value().get(), directory_in(root, name)));
  }
  return ok_status();
}

Result<UniqueFd> new_file(int directory, const char* name) {
  UniqueFd file(::openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644));
  if (!file.valid() && errno != EEXIST) return failure(errno, "write a file of the box's /etc", name);
  return file;
}

Status copy_file(int from, const char* name, int to) {
  if (TRY(copy_link(from, name, to))) return ok_status();
  const UniqueFd source(::openat(from, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  struct stat facts{};
  if (!source.valid() || ::fstat(source.get(), &facts) != 0 || !S_ISREG(facts.st_mode)) return ok_status();
  if (facts.st_size > kLargestCopy) return ok_status();
  const UniqueFd copy = TRY(new_file(to, name));
  for (off_t left = facts.st_size; copy.valid() && left > 0;) {
    const ssize_t moved = ::sendfile(copy.get(), source.get(), nullptr, static_cast<std::size_t>(left));
    if (moved < 0) return failure(errno, "copy a file to the box's /etc", name);
    if (moved == 0) break;  // it shrank meanwhile
    left -= moved;
  }
  return ok_status();
}

Status write_file(int directory, const char* name, std::string_view text) {
  const UniqueFd file = TRY(new_file(directory, name));
  if (!file.valid()) return ok_status();
  if (::write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    return failure(errno, "write a file of the box's /etc", name);
  return ok_status();
}

// The name by a new file that takes the old one's place: a kept layer may have that of another start.
Status write_hostname(int etc, const std::string& hostname) {
  ::unlinkat(etc, "hostname", 0);
  return write_file(etc, "hostname", hostname + "\n");
}

Status show_etc(int root, int host) {
  const UniqueFd from(::openat(host, "etc", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!from.valid()) return failure(errno, "open the host's /etc");
  const UniqueFd etc = TRY(directory_in(root, "etc"));
  for (const char* name : kEtcFiles) TRY(copy_file(from.get(), name, etc.get()));
  for (const EtcText& file : kEtcTexts) TRY(write_file(etc.get(), file.name, file.text));
  for (const char* name : kEtcDirectories) {
    struct stat facts{};
    if (::fstatat(from.get(), name, &facts, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISDIR(facts.st_mode)) continue;
    const UniqueFd tree = TRY(clone_tree(from.get(), name, kReadOnly, Depth::kAll));
    TRY(attach(tree.get(), directory_in(etc.get(), name)));
  }
  return ok_status();
}

}  // namespace

Status show_host(int root) {
  const UniqueFd host(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!host.valid()) return failure(errno, "open the host's root");
  TRY(show_programs(root, host.get()));
  return show_etc(root, host.get());
}

Status hide_home(int root, const std::string& home) {
  for (const char* name : kHostPrograms) {
    if (!home.starts_with("/" + std::string(name) + "/")) continue;
    const MountOption options[] = {{"size", "4096"}, {"nr_inodes", "1"}, {"mode", "555"}};
    const UniqueFd empty = TRY(new_filesystem("tmpfs", options, kReadOnly));
    return attach(empty.get(), directory_in(root, home.c_str() + 1));
  }
  return ok_status();
}

Status finish_host_view(int root, const RootDetails& details) {
  const UniqueFd etc = TRY(directory_in(root, "etc"));
  TRY(write_hostname(etc.get(), details.hostname));
  return hide_home(root, details.home);
}

}  // namespace sluicebox::walls
