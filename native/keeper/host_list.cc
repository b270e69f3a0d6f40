#include "keeper/host_list.h"

#include <fcntl.h>
#include <fts.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <memory>
#include <set>
#include <string_view>
#include <utility>

#include "base/unique_fd.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace sluicebox::keeper {

namespace {

constexpr std::uint64_t kBlock = 4096;
constexpr std::uint64_t kInode = 64;
constexpr std::size_t kChunk = std::size_t{64} * 1024;

std::uint64_t whole_blocks(std::uint64_t bytes) { return (bytes + kBlock - 1) / kBlock * kBlock; }

class Lister {
 public:
  explicit Lister(dev_t own) : own_(own) { XXH3_128bits_reset(&digest_); }

  // False: it is left out, with all that it holds.
  Result<bool> add(const FTSENT& entry, std::string_view path) {
    const struct stat& facts = *entry.fts_statp;
    if (!may_all_read(facts)) {
      list_.left_out.emplace_back(path);
      return false;
    }
    put(path);
    put_number(facts.st_mode);
    if (S_ISDIR(facts.st_mode)) {
      list_.bytes += kInode + kBlock;
    } else if (S_ISLNK(facts.st_mode)) {
      TRY(put_target(entry));
    } else {
      TRY(put_file(entry));
    }
    return true;
  }

  HostList take() {
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(&digest_));
    constexpr const char* kHex = "0123456789abcdef";
    for (const unsigned char byte : canonical.digest) {
      list_.key += kHex[byte >> 4];
      list_.key += kHex[byte & 0xf];
    }
    return std::move(list_);
  }

 private:
  static bool may_all_read(const struct stat& facts) {
    if (S_ISLNK(facts.st_mode)) return true;
    if (S_ISDIR(facts.st_mode)) return (facts.st_mode & (S_IROTH | S_IXOTH)) == (S_IROTH | S_IXOTH);
    return S_ISREG(facts.st_mode) && (facts.st_mode & S_IROTH) != 0;
  }

  // With its end, so that two texts are never another two.
  void put(std::string_view text) {
    put_number(text.size());
    XXH3_128bits_update(&digest_, text.data(), text.size());
  }
  void put_number(std::uint64_t number) { XXH3_128bits_update(&digest_, &number, sizeof number); }

  Status put_target(const FTSENT& entry) {
    std::array<char, PATH_MAX> target{};
    const ssize_t length = ::readlink(entry.fts_accpath, target.data(), target.size());
    if (length < 0) return os_error(errno, "cannot read a link of the host", entry.fts_path);
    put(std::string_view(target.data(), static_cast<std::size_t>(length)));
    list_.bytes += kInode + static_cast<std::uint64_t>(length);
    return ok_status();
  }

  Status put_file(const FTSENT& entry) {
    const struct stat& facts = *entry.fts_statp;
    const bool another_name = facts.st_nlink > 1 && !seen_.emplace(facts.st_dev, facts.st_ino).second;
    if (!another_name) list_.bytes += kInode + whole_blocks(static_cast<std::uint64_t>(facts.st_size));
    put_number(static_cast<std::uint64_t>(facts.st_size));
    if (facts.st_dev == own_) return put_bytes(entry);
    put_number(facts.st_ino);
    put_number(static_cast<std::uint64_t>(facts.st_mtim.tv_sec));
    put_number(static_cast<std::uint64_t>(facts.st_mtim.tv_nsec));
    return ok_status();
  }

  Status put_bytes(const FTSENT& entry) {
    const UniqueFd file(::open(entry.fts_accpath, O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
    if (!file.valid()) return os_error(errno, "cannot open a file of the host's view", entry.fts_path);
    std::array<char, kChunk> chunk{};
    while (true) {
      const ssize_t got = ::read(file.get(), chunk.data(), chunk.size());
      if (got < 0) return os_error(errno, "cannot read a file of the host's view", entry.fts_path);
      if (got == 0) return ok_status();
      XXH3_128bits_update(&digest_, chunk.data(), static_cast<std::size_t>(got));
    }
  }

  const dev_t own_;
  XXH3_state_t digest_{};
  std::set<std::pair<dev_t, ino_t>> seen_;
  HostList list_;
};

int by_name(const FTSENT** one, const FTSENT** other) { return std::strcmp((*one)->fts_name, (*other)->fts_name); }

}  // namespace

Result<HostList> list_host(const std::string& root) {
  std::string path = root;
  std::array<char*, 2> roots = {path.data(), nullptr};
  const std::unique_ptr<FTS, int (*)(FTS*)> tree(::fts_open(roots.data(), FTS_PHYSICAL | FTS_NOCHDIR, by_name),
                                                 ::fts_close);
  struct stat facts{};
  if (!tree || ::stat(root.c_str(), &facts) != 0) return os_error(errno, "cannot look at the host's programs", root);
  Lister lister(facts.st_dev);
  while (FTSENT* entry = ::fts_read(tree.get())) {
    if (entry->fts_level == 0 || entry->fts_info == FTS_DP) continue;
    if (entry->fts_info == FTS_NS && entry->fts_errno == ENOENT) continue;  // gone since its directory was read
    const std::string_view name = std::string_view(entry->fts_path).substr(root.size() + 1);
    // One that cannot be read is asked only after it was found that everybody may.
    if (entry->fts_info == FTS_DNR || entry->fts_info == FTS_ERR || entry->fts_info == FTS_NS)
      return os_error(entry->fts_errno, "cannot read the host's programs", "/" + std::string(name));
    if (!TRY(lister.add(*entry, name))) ::fts_set(tree.get(), entry, FTS_SKIP);
  }
  return lister.take();
}

}  // namespace sluicebox::keeper
