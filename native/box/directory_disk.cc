#include "box/directory_disk.h"

#include <fcntl.h>
#include <fts.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <utility>
#include <vector>

#include "base/unique_fd.h"
#include "box/child_program.h"

namespace sluicebox::box {

namespace {

constexpr const char* kPrograms[] = {"/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4", "/usr/bin/mkfs.ext4"};
// The file system's own share is about a sixteenth; the journal takes up to 64 MiB.
constexpr std::uint64_t kLeast = std::uint64_t{256} << 20;
constexpr std::uint64_t kBlock = 4096;

Result<std::string> find_program() {
  for (const char* path : kPrograms) {
    if (::access(path, X_OK) == 0) return std::string(path);
  }
  return Error(ErrorCode::kUnsupported, "a disk is made from a directory by mkfs.ext4, which is not installed")
      .advise("Install it: apt-get install e2fsprogs");
}

// What the files take, in whole blocks, with an inode each.
Result<std::uint64_t> size_of(const std::string& directory) {
  std::string path = directory;
  std::array<char*, 2> roots = {path.data(), nullptr};
  const std::unique_ptr<FTS, int (*)(FTS*)> tree(::fts_open(roots.data(), FTS_PHYSICAL | FTS_NOCHDIR, nullptr),
                                                 ::fts_close);
  if (!tree) return os_error(errno, "cannot look at the root file system's directory", directory);
  std::uint64_t size = 0;
  errno = 0;
  while (const FTSENT* entry = ::fts_read(tree.get())) {
    if (entry->fts_info == FTS_DNR || entry->fts_info == FTS_ERR || entry->fts_info == FTS_NS)
      return os_error(entry->fts_errno, "cannot read the root file system's directory", entry->fts_path);
    if (entry->fts_info == FTS_DP) continue;
    size += kBlock + (static_cast<std::uint64_t>(entry->fts_statp->st_size) + kBlock - 1) / kBlock * kBlock;
  }
  return size;
}

Status make_empty(const std::string& image, std::uint64_t size) {
  const UniqueFd file(::open(image.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file.valid()) return os_error(errno, "cannot make the box's disk", image);
  if (::ftruncate(file.get(), static_cast<off_t>(size)) != 0)
    return os_error(errno, "cannot size the box's disk", image);
  return ok_status();
}

Status run(const std::string& program, std::vector<std::string> words, const std::string& image,
           const CancelToken& cancel) {
  const ChildEnd end = TRY(run_program({.path = program, .arguments = std::move(words)}, cancel));
  if (end.exit_code == 0) return ok_status();
  const bool full = end.words.find("o space left") != std::string::npos ||
                    end.words.find("Could not allocate block") != std::string::npos;
  return Error(full ? ErrorCode::kNoSpace : ErrorCode::kIo, "mkfs.ext4 cannot make the box's disk: " + end.words)
      .on(image);
}

}  // namespace

Status make_directory_disk(const std::string& directory, const std::string& image, std::uint64_t size,
                           const CancelToken& cancel) {
  const std::string program = TRY(find_program());
  const std::uint64_t taken = TRY(size_of(directory));
  const std::uint64_t bytes = size != 0 ? size : std::max(kLeast, 2 * taken + kLeast / 2);
  TRY(make_empty(image, bytes / kBlock * kBlock));
  return run(program,
             {"-q", "-F", "-m0", "-E", "root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1,nodiscard", "-d",
              directory, image},
             image, cancel);
}

}  // namespace sluicebox::box
