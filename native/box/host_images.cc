#include "box/host_images.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <limits>
#include <set>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "base/directory.h"
#include "box/child_program.h"
#include "box/home.h"
#include "box/removal.h"

namespace sluicebox::box {

namespace {

// As the keeper knows them: keeper/host_image.h.
constexpr const char* kListJob = "--host-list";
constexpr const char* kImageJob = "--host-image";
constexpr int kHostChangedExit = 3;

constexpr const char* kMkfsPaths[] = {"/usr/bin/mkfs.erofs", "/usr/sbin/mkfs.erofs", "/sbin/mkfs.erofs"};
constexpr const char* kRootImage = "root.erofs";
constexpr std::string_view kBeingMade = ".new";
constexpr std::size_t kKeyLength = 32;
constexpr int kMostTries = 3;
// lz4 makes programs about half as large. What packs worse is found when it is written.
constexpr std::uint64_t kPacked = 2;
constexpr std::chrono::milliseconds kLockGlance{20};

std::optional<std::string> find_mkfs() {
  for (const char* path : kMkfsPaths) {
    if (::access(path, X_OK) == 0) return path;
  }
  return std::nullopt;
}

bool is_image_key(std::string_view text) {
  return text.size() == kKeyLength && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

Status make_private(const std::string& path) {
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST)
    return os_error(errno, "cannot make the directory of the host's images", path);
  return ok_status();
}

std::vector<std::string> names_in(int directory) {
  std::vector<std::string> names;
  const UniqueDirectory list(::fdopendir(::openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)));
  while (const dirent* each = list ? ::readdir(list.get()) : nullptr) names.emplace_back(each->d_name);
  return names;
}

std::string mebibytes(std::uint64_t bytes) { return std::to_string((bytes >> 20) + 1) + " MiB"; }

}  // namespace

std::optional<Error> HostImages::missing() {
  if (find_mkfs()) return std::nullopt;
  return Error(ErrorCode::kUnsupported,
               "a virtual machine's root is made from the host's programs by mkfs.erofs, which is not installed")
      .advise("Install it: apt-get install erofs-utils. Or name a rootfs: { disk } or { directory }.");
}

std::string HostImages::path_of(const std::string& key) const { return hosts() + "/" + key + "/" + kRootImage; }

Result<HostImages::State> HostImages::look(const CancelToken& cancel) const {
  const ChildEnd end = TRY(run_program({.path = keeper_, .arguments = {kListJob, view(), home_}}, cancel));
  State state;
  const std::size_t space = end.output.find(' ');
  if (end.exit_code == 0 && space != std::string::npos) {
    state.key = end.output.substr(0, space);
    std::from_chars(end.output.data() + space + 1, end.output.data() + end.output.size(), state.bytes);
  }
  if (is_image_key(state.key)) return state;
  return Error(ErrorCode::kBoxStart, "cannot look at the host's programs: " + end.words);
}

// It is there, and was used now.
bool HostImages::touch(const std::string& key) const {
  if (::access(path_of(key).c_str(), R_OK) != 0) return false;
  ::utimensat(AT_FDCWD, (hosts() + "/" + key).c_str(), nullptr, 0);
  return true;
}

Result<UniqueFd> HostImages::lock(const CancelToken& cancel) const {
  const std::string path = hosts() + "/lock";
  UniqueFd file(::open(path.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file.valid()) return os_error(errno, "cannot open the lock of the host's images", path);
  while (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) return os_error(errno, "cannot lock the host's images", path);
    TRY(cancel.check());
    std::this_thread::sleep_for(kLockGlance);
  }
  return file;
}

// Unknown is enough: writing tells.
std::uint64_t HostImages::free_room() const {
  struct statvfs facts{};
  if (::statvfs(hosts().c_str(), &facts) != 0) return std::numeric_limits<std::uint64_t>::max();
  return std::uint64_t{facts.f_bavail} * facts.f_frsize;
}

Error HostImages::no_room(std::uint64_t bytes) const {
  const std::uint64_t free = free_room();
  return Error(ErrorCode::kNoSpace, "the host's programs take " + mebibytes(bytes) + " as a root file system, and " +
                                        mebibytes(free) + " are free")
      .on(hosts())
      .advise("Free " + mebibytes(bytes - std::min(bytes, free)) + " there, choose another home, or name a rootfs.");
}

// False: the host is not as it was any more.
Result<bool> HostImages::make(const State& state, const CancelToken& cancel, ProgressSink& progress) const {
  const auto mkfs = find_mkfs();
  if (!mkfs) return *missing();
  const std::uint64_t expected = state.bytes / kPacked;
  if (free_room() < expected) return no_room(expected);
  const std::string unfinished = hosts() + "/" + state.key + std::string(kBeingMade);
  TRY(make_private(unfinished));
  const std::string path = unfinished + "/" + kRootImage;
  const UniqueFd image(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!image.valid()) return os_error(errno, "cannot make an image of the host's programs", path);
  const auto tell = [&] {
    struct stat facts{};
    if (::fstat(image.get(), &facts) != 0) return;
    const std::uint64_t written = static_cast<std::uint64_t>(facts.st_blocks) * 512;
    progress.report({.phase = "prepare", .done = std::min(written, expected), .total = expected});
  };
  const ChildEnd end = TRY(
      run_program({.path = keeper_, .arguments = {kImageJob, view(), home_, state.key, *mkfs}, .passed = image.get()},
                  cancel, tell));
  if (end.exit_code == kHostChangedExit) return false;
  if (end.words.find("o space left") != std::string::npos) {
    ::ftruncate(image.get(), 0);  // what is free without it
    return no_room(state.bytes);
  }
  if (end.exit_code != 0) return Error(ErrorCode::kIo, "mkfs.erofs cannot read the host's programs: " + end.words);
  // What was read while it changed is no state of the host.
  if (TRY(look(cancel)).key != state.key) return false;
  // Its name must not outlive a power cut that its bytes do not.
  if (::fchmod(image.get(), 0400) != 0 || ::fdatasync(image.get()) != 0)
    return os_error(errno, "cannot write an image of the host's programs", path);
  if (::rename(unfinished.c_str(), (hosts() + "/" + state.key).c_str()) != 0)
    return os_error(errno, "cannot put an image of the host's programs in place", path);
  return true;
}

void HostImages::drop_leftovers(int hosts) const {
  for (const std::string& name : names_in(hosts)) {
    if (!name.ends_with(kBeingMade) || !is_image_key(std::string_view(name).substr(0, kKeyLength))) continue;
    [[maybe_unused]] const Status removed = remove_tree(hosts, name);
  }
}

// A box that is being made has used its own just now, so it is among the last.
void HostImages::drop_unused(int hosts) const {
  const auto home = Home::open(home_);
  if (!home.ok()) return;
  auto boxes = home.value().list([](const Error&) {});
  if (!boxes.ok()) return;
  std::set<std::string> used;
  for (const Home::Entry& box : boxes.value()) {
    for (const DiskSpec& disk : box.record.spec.disks) used.insert(disk.path);
  }
  std::vector<std::pair<std::int64_t, std::string>> images;
  for (const std::string& name : names_in(hosts)) {
    struct stat facts{};
    if (!is_image_key(name) || ::fstatat(hosts, name.c_str(), &facts, AT_SYMLINK_NOFOLLOW) != 0) continue;
    images.emplace_back(std::int64_t{facts.st_mtim.tv_sec} * 1'000'000'000 + facts.st_mtim.tv_nsec, name);
  }
  std::sort(images.begin(), images.end());
  for (std::size_t i = 0; i + kMost < images.size(); ++i) {
    if (used.contains(path_of(images[i].second))) continue;
    [[maybe_unused]] const Status removed = remove_tree(hosts, images[i].second);
  }
}

Result<std::string> HostImages::take(const CancelToken& cancel, ProgressSink& progress) const {
  TRY(make_private(hosts()));
  TRY(make_private(view()));
  progress.report({.phase = "prepare", .total = std::nullopt});
  for (int attempt = 0; attempt < kMostTries; ++attempt) {
    const State state = TRY(look(cancel));
    if (touch(state.key)) return path_of(state.key);
    const UniqueFd held = TRY(lock(cancel));
    if (touch(state.key)) return path_of(state.key);  // whoever held it made it
    const UniqueFd directory(::open(hosts().c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!directory.valid()) return os_error(errno, "cannot open the directory of the host's images", hosts());
    drop_leftovers(directory.get());
    const auto made = make(state, cancel, progress);
    if (made.ok() && made.value()) {
      drop_unused(directory.get());
      return path_of(state.key);
    }
    drop_leftovers(directory.get());
    if (!made.ok()) return made.error();
  }
  return Error(ErrorCode::kInUse, "the host's programs change while an image of them is made")
      .advise("Try again once what is being installed is.");
}

}  // namespace sluicebox::box
