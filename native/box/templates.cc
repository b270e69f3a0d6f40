#include "box/templates.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/directory.h"
#include "box/digest.h"
#include "box/record.h"
#include "box/removal.h"
#include "box/sealed_memory.h"

namespace sluicebox::box {

namespace {

using nlohmann::json;

constexpr int kTemplateVersion = 1;
constexpr std::size_t kMostJson = std::size_t{1} << 20;
constexpr std::size_t kCopyChunk = std::size_t{1} << 20;
// What others may need of a disk meanwhile.
constexpr std::uint64_t kSpared = std::uint64_t{1} << 30;
constexpr const char* kTemplateFile = "template.json";
constexpr const char* kStateFile = "state";
constexpr const char* kLockFile = "lock";
constexpr const char* kUnfinished = ".new";
// Of the host's counter: a guest's clock that is off by that much is put right by whoever keeps time there.
constexpr std::uint64_t kTimeStampParts = 1000;

std::string disk_name(std::size_t disk) { return "disk" + std::to_string(disk) + ".qcow2"; }

UniqueFd directory_at(int parent, const std::string& name) {
  return UniqueFd(::openat(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
}

// Its owner is the only one who may write there: a machine's memory is all that its programs can be made to do.
Result<UniqueFd> open_private(const std::string& path) {
  UniqueFd directory = directory_at(AT_FDCWD, path);
  if (!directory.valid()) return os_error(errno, "cannot open the directory of templates", path);
  struct stat facts{};
  if (::fstat(directory.get(), &facts) != 0) return os_error(errno, "cannot examine the directory of templates", path);
  if (facts.st_uid != ::geteuid() || (facts.st_mode & 022) != 0) {
    return Error(ErrorCode::kPermission,
                 "the directory of templates belongs to another user, or others can write to it")
        .on(path)
        .advise("Name one of your own, chmod 700.");
  }
  return directory;
}

bool close_by(std::uint64_t one, std::uint64_t other) {
  const std::uint64_t apart = one > other ? one - other : other - one;
  return apart <= one / kTimeStampParts;
}

// The file's whole text and its digest; what is longer than any record is none.
json read_record(int directory) {
  const UniqueFd file(::openat(directory, kTemplateFile, O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!file.valid()) return {};
  const auto bytes = read_whole(file.get(), kMostJson, "a template's record", {});
  if (!bytes.ok()) return {};
  return json::parse(bytes.value().begin(), bytes.value().end(), nullptr, false);
}

// Holes stay holes. Gives what was read.
Result<std::string> copy(int from, int to) {
  Digest digest;
  std::vector<std::byte> chunk(kCopyChunk);
  off_t at = 0;
  while (true) {
    const ssize_t got = ::pread(from, chunk.data(), chunk.size(), at);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return os_error(errno, "cannot read a template's disk");
    if (got == 0) break;
    const Bytes bytes = Bytes(chunk).first(static_cast<std::size_t>(got));
    digest.add(bytes);
    const bool is_hole = std::all_of(bytes.begin(), bytes.end(), [](std::byte byte) { return byte == std::byte{0}; });
    for (std::size_t done = 0; !is_hole && done < bytes.size();) {
      const ssize_t put = ::pwrite(to, bytes.data() + done, bytes.size() - done, at + static_cast<off_t>(done));
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) return os_error(errno, "cannot copy a template's disk");
      done += static_cast<std::size_t>(put);
    }
    at += got;
  }
  if (::ftruncate(to, at) != 0) return os_error(errno, "cannot copy a template's disk");
  return digest.text();
}

Result<std::string> copy_file(int from_directory, const std::string& from, int to_directory, const std::string& to) {
  const UniqueFd source(::openat(from_directory, from.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!source.valid()) return os_error(errno, "cannot open a disk to copy it", from);
  const UniqueFd target(
      ::openat(to_directory, to.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!target.valid()) return os_error(errno, "cannot make the copy of a disk", to);
  return copy(source.get(), target.get());
}

bool has_room(int templates, std::uint64_t memory) {
  struct statfs facts{};
  if (::fstatfs(templates, &facts) != 0 || facts.f_type == TMPFS_MAGIC) return false;
  return std::uint64_t{facts.f_bavail} * static_cast<std::uint64_t>(facts.f_bsize) >= memory + kSpared;
}

// Without its record it is none any more, however far the removal gets.
void remove_entry(int templates, const std::string& name) {
  if (const UniqueFd directory = directory_at(templates, name); directory.valid())
    ::unlinkat(directory.get(), kTemplateFile, 0);
  [[maybe_unused]] const Status removed = remove_tree(templates, name);
}

bool is_key(std::string_view name) {
  return name.size() == 32 && name.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

// What is beyond the most that are kept, and what killed makers left.
void tidy(int templates) {
  const UniqueDirectory directory(::fdopendir(::openat(templates, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)));
  if (!directory) return;
  std::vector<std::pair<std::int64_t, std::string>> whole;
  std::vector<std::string> unfinished;
  while (const dirent* each = ::readdir(directory.get())) {
    const std::string name = each->d_name;
    struct stat facts{};
    if (is_key(name)) {
      // Used when its record was looked at last.
      const bool there = ::fstatat(templates, (name + "/" + kTemplateFile).c_str(), &facts, AT_SYMLINK_NOFOLLOW) == 0;
      whole.emplace_back(there ? std::int64_t{facts.st_mtim.tv_sec} : 0, name);
    } else if (name.ends_with(kUnfinished) && is_key(name.substr(0, name.size() - std::strlen(kUnfinished)))) {
      unfinished.push_back(name);
    }
  }
  std::sort(whole.begin(), whole.end());
  for (std::size_t i = 0; i + Templates::kMost < whole.size(); ++i) remove_entry(templates, whole[i].second);
  for (const std::string& name : unfinished) {
    const UniqueFd lock(::openat(templates, (name + "/" + kLockFile).c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC));
    if (lock.valid() && ::flock(lock.get(), LOCK_EX | LOCK_NB) == 0) remove_entry(templates, name);
  }
}

}  // namespace

// ---------- to go on from ----------
std::optional<Templates::Entry> Templates::find(const Ingredients& of) const {
  const auto templates = open_private(path_);
  if (!templates.ok()) return std::nullopt;
  Entry entry{.key = of.key(),
              .id = {},
              .directory = directory_at(templates.value().get(), of.key()),
              .state = {},
              .state_digest = {},
              .disk_digests = {}};
  if (!entry.directory.valid()) return std::nullopt;
  const json record = read_record(entry.directory.get());
  bool sound = record.is_object() && record.value("version", json()) == kTemplateVersion;
  try {
    sound = sound && record.at("of") == of.text;
    // Another host's, maybe, which shares the directory: of no use here.
    if (sound && !close_by(of.time_stamp_khz, record.at("timeStampKhz").get<std::uint64_t>())) return std::nullopt;
    if (sound) {
      entry.id = record.at("id").get<std::string>();
      entry.state_digest = record.at("state").get<std::string>();
      entry.disk_digests = record.at("disks").get<std::vector<std::string>>();
    }
  } catch (const json::exception&) {
    sound = false;
  }
  entry.state = UniqueFd(::openat(entry.directory.get(), kStateFile, O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!sound || !entry.state.valid()) {
    remove_entry(templates.value().get(), entry.key);
    return std::nullopt;
  }
  ::utimensat(entry.directory.get(), kTemplateFile, nullptr, AT_SYMLINK_NOFOLLOW);
  return entry;
}

Status Templates::copy_disk(const Entry& entry, std::size_t disk, int box_directory, const std::string& name) {
  const std::string digest = TRY(copy_file(entry.directory.get(), disk_name(disk), box_directory, name));
  if (digest == entry.disk_digests[disk]) return ok_status();
  return Error(ErrorCode::kIo, "a template's disk is not what was written to it");
}

void Templates::drop(const Entry& entry) const {
  const auto templates = open_private(path_);
  if (!templates.ok()) return;
  // It may have been rebuilt by now.
  const UniqueFd now = directory_at(templates.value().get(), entry.key);
  struct stat one{};
  struct stat other{};
  if (!now.valid() || ::fstat(now.get(), &one) != 0 || ::fstat(entry.directory.get(), &other) != 0) return;
  if (one.st_ino == other.st_ino && one.st_dev == other.st_dev) remove_entry(templates.value().get(), entry.key);
}

// ---------- to make ----------
Result<std::optional<Templates::Making>> Templates::make(const Ingredients& of, std::uint64_t memory) const {
  TRY(make_parents(path_));
  if (::mkdir(path_.c_str(), 0700) != 0 && errno != EEXIST)
    return os_error(errno, "cannot make the directory of templates", path_);
  const UniqueFd templates = TRY(open_private(path_));
  if (!has_room(templates.get(), memory)) return std::optional<Making>();
  const std::string key = of.key();
  const std::string name = key + kUnfinished;
  ::mkdirat(templates.get(), name.c_str(), 0700);
  UniqueFd directory = directory_at(templates.get(), name);
  if (!directory.valid()) return os_error(errno, "cannot make a template", path_);
  UniqueFd lock(::openat(directory.get(), kLockFile, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!lock.valid()) return os_error(errno, "cannot lock a template", path_);
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) return std::optional<Making>();
  // Who had the lock before may have finished it, and the directory is not the one of that name any more.
  struct stat locked{};
  struct stat named{};
  if (::fstat(lock.get(), &locked) != 0 ||
      ::fstatat(templates.get(), (name + "/" + kLockFile).c_str(), &named, AT_SYMLINK_NOFOLLOW) != 0 ||
      locked.st_ino != named.st_ino)
    return std::optional<Making>();
  Making making(path_, key, std::move(directory), std::move(lock));
  if (::faccessat(templates.get(), (key + "/" + kTemplateFile).c_str(), F_OK, AT_SYMLINK_NOFOLLOW) == 0)
    return std::optional<Making>();
  return std::optional<Making>(std::move(making));
}

Templates::Making::Making(std::string path, std::string key, UniqueFd directory, UniqueFd lock)
    : path_(std::move(path)), key_(std::move(key)), directory_(std::move(directory)), lock_(std::move(lock)) {}

Templates::Making::~Making() {
  if (!lock_.valid()) return;
  if (const auto templates = open_private(path_); templates.ok())
    remove_entry(templates.value().get(), key_ + kUnfinished);
  // By word, not by close: a process that is just being started has a copy of every descriptor.
  ::flock(lock_.get(), LOCK_UN);
}

Result<UniqueFd> Templates::Making::state() {
  state_ = UniqueFd(::openat(directory_.get(), kStateFile, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!state_.valid()) return os_error(errno, "cannot make a template's file");
  UniqueFd copy(::fcntl(state_.get(), F_DUPFD_CLOEXEC, 0));
  if (!copy.valid()) return os_error(errno, "cannot double a descriptor");
  return copy;
}

Status Templates::Making::add_disks(int box_directory, const std::vector<DiskRecord>& disks) {
  for (std::size_t i = 0; i < disks.size(); ++i) {
    std::string& digest = disk_digests_.emplace_back();
    const std::string& overlay = disks[i].overlay;
    if (!overlay.empty()) digest = TRY(copy_file(box_directory, overlay, directory_.get(), disk_name(i)));
  }
  return ok_status();
}

Status Templates::Making::finish(const Ingredients& of) {
  const json record = {{"version", kTemplateVersion},
                       {"id", TRY(new_box_id())},
                       {"of", of.text},
                       {"timeStampKhz", of.time_stamp_khz},
                       {"state", TRY(digest_of(state_.get()))},
                       {"disks", disk_digests_}};
  const std::string text = record.dump();
  const UniqueFd file(
      ::openat(directory_.get(), kTemplateFile, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file.valid() || ::write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    return os_error(file.valid() ? ENOSPC : errno, "cannot write a template's record", path_);
  const UniqueFd templates = TRY(open_private(path_));
  if (::renameat2(templates.get(), (key_ + kUnfinished).c_str(), templates.get(), key_.c_str(), RENAME_NOREPLACE) != 0)
    return os_error(errno, "cannot give a template its name", path_);
  ::flock(lock_.get(), LOCK_UN);
  lock_.reset();
  tidy(templates.get());
  return ok_status();
}

}  // namespace sluicebox::box
