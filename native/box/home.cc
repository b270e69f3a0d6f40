#include "box/home.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "base/directory.h"
#include "box/removal.h"

namespace sluicebox::box {

namespace {

constexpr std::size_t kMaxRecord = std::size_t{1} << 20;

Result<UniqueFd> open_directory(int at, const std::string& name, const std::string& shown) {
  UniqueFd fd(::openat(at, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.valid()) return os_error(errno, "cannot open the directory", shown);
  return fd;
}

Status check_private(int fd, const std::string& path) {
  struct stat status{};
  if (::fstat(fd, &status) != 0) return os_error(errno, "cannot examine the home", path);
  if (status.st_uid != ::geteuid()) {
    return Error(ErrorCode::kPermission, "the home belongs to another user")
        .on(path)
        .advise("Name a home of your own.");
  }
  if ((status.st_mode & 022) != 0) {
    return Error(ErrorCode::kPermission, "the home can be written by others").on(path).advise("chmod 700 it.");
  }
  if ((status.st_mode & 077) != 0 && ::fchmod(fd, 0700) != 0) return os_error(errno, "cannot close the home", path);
  return ok_status();
}

// Whether some keeper holds the box's lock.
bool is_running(int directory) {
  const UniqueFd lock(::openat(directory, "lock", O_RDWR | O_NOFOLLOW | O_CLOEXEC));
  if (!lock.valid()) return false;
  if (::flock(lock.get(), LOCK_SH | LOCK_NB) != 0) return errno == EWOULDBLOCK;
  // By word, not by close: a process that is just being started has a copy of every descriptor.
  ::flock(lock.get(), LOCK_UN);
  return false;
}

Result<UniqueFd> lock_box(int directory, const std::string& id) {
  UniqueFd lock(::openat(directory, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!lock.valid()) return os_error(errno, "cannot open the box's lock");
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) == 0) return lock;
  if (errno != EWOULDBLOCK) return os_error(errno, "cannot lock the box");
  return Error(ErrorCode::kInUse, "the box " + id + " runs, or another process is at it");
}

Result<std::string> read_file(int directory, const char* name, std::size_t limit) {
  const UniqueFd file(::openat(directory, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!file.valid()) return os_error(errno, "cannot open the record");
  std::string text(limit + 1, '\0');
  const ssize_t got = ::pread(file.get(), text.data(), text.size(), 0);
  if (got < 0) return os_error(errno, "cannot read the record");
  if (static_cast<std::size_t>(got) > limit) return Error(ErrorCode::kIo, "the record is too long");
  text.resize(static_cast<std::size_t>(got));
  return text;
}

}  // namespace

void Home::Held::let_go() {
  if (lock.valid()) ::flock(lock.get(), LOCK_UN);
  lock.reset();
  directory.reset();
}

Result<Home> Home::open(const std::string& path) {
  TRY(make_parents(path));
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return os_error(errno, "cannot make the home", path);
  UniqueFd home(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!home.valid() && (errno == ELOOP || errno == ENOTDIR)) {
    return Error(ErrorCode::kPermission, "the home is not a directory of its own (a link or a file)").on(path);
  }
  if (!home.valid()) return os_error(errno, "cannot open the home", path);
  TRY(check_private(home.get(), path));
  if (::mkdirat(home.get(), "boxes", 0700) != 0 && errno != EEXIST) {
    return os_error(errno, "cannot make a directory in the home", path);
  }
  UniqueFd boxes = TRY(open_directory(home.get(), "boxes", path + "/boxes"));
  return Home(path, std::move(home), std::move(boxes));
}

Result<UniqueFd> Home::lock() const {
  UniqueFd file(::openat(home_.get(), "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file.valid()) return os_error(errno, "cannot open the home's lock", path_);
  int failed = 0;
  do failed = ::flock(file.get(), LOCK_EX);
  while (failed != 0 && errno == EINTR);
  if (failed != 0) return os_error(errno, "cannot lock the home", path_);
  return file;
}

Result<std::vector<std::string>> Home::ids() const {
  const int copy = ::openat(boxes_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (copy < 0) return os_error(errno, "cannot list the boxes", path_);
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(::fdopendir(copy), ::closedir);
  std::vector<std::string> ids;
  while (const dirent* each = ::readdir(directory.get())) {
    if (is_box_id(each->d_name)) ids.emplace_back(each->d_name);
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

Result<Home::Entry> Home::entry(const std::string& id) const {
  const UniqueFd box = TRY(directory(id));
  auto text = read_file(box.get(), "record.json", kMaxRecord);
  if (!text.ok() && text.error().os_error == ENOENT) {
    return Error(ErrorCode::kBoxNotFound, "no box has the id \"" + id + "\"");
  }
  if (!text.ok()) return Error(text.error());
  Entry entry{.record = TRY(from_json(*text)), .running = is_running(box.get())};
  if (entry.record.id != id) return Error(ErrorCode::kIo, "the record is another box's");
  return entry;
}

Result<std::vector<Home::Entry>> Home::list(const std::function<void(const Error&)>& problem) const {
  std::vector<Entry> entries;
  for (const std::string& id : TRY(ids())) {
    auto found = entry(id);
    if (found.ok()) {
      entries.push_back(std::move(found).value());
    } else if (found.error().code == ErrorCode::kIo) {
      const auto box = directory(id);
      if (box.ok()) {
        ::renameat(box.value().get(), "record.json", box.value().get(), "record.json.damaged");
        problem(std::move(found).error().on(path_ + "/boxes/" + id + "/record.json.damaged"));
      }
    }
  }
  return entries;
}

Result<Home::Entry> Home::find(const std::string& id_or_name) const {
  if (is_box_id(id_or_name)) {
    if (auto found = entry(id_or_name); found.ok()) return found;
  }
  for (Entry& each : TRY(list([](const Error&) {}))) {
    if (each.record.spec.name == id_or_name) return std::move(each);
  }
  return Error(ErrorCode::kBoxNotFound, "no box has the id or name \"" + id_or_name + "\"");
}

Result<UniqueFd> Home::directory(const std::string& id) const {
  if (!is_box_id(id)) return Error(ErrorCode::kBoxNotFound, "\"" + id + "\" is no box's id");
  auto box = open_directory(boxes_.get(), id, path_ + "/boxes/" + id);
  if (!box.ok() && box.error().os_error == ENOENT) {
    return Error(ErrorCode::kBoxNotFound, "no box has the id \"" + id + "\"");
  }
  return box;
}

Result<Home::Held> Home::add(const BoxRecord& record) const {
  const UniqueFd held = TRY(lock());
  if (record.spec.name) {
    const auto other = find(*record.spec.name);
    if (other.ok()) {
      return Error(ErrorCode::kBoxExists, "a box named \"" + *record.spec.name + "\" exists")
          .advise("Use another name, ifExists: 'reuse' or 'replace', or remove it.");
    }
    if (other.error().code != ErrorCode::kBoxNotFound) return Error(other.error());
  }
  if (::mkdirat(boxes_.get(), record.id.c_str(), 0700) != 0)
    return os_error(errno, "cannot make the box's directory", path_);
  UniqueFd box = TRY(directory(record.id));
  auto locked = lock_box(box.get(), record.id);
  Status written = locked.ok() ? write_record(box.get(), record) : Status(locked.error());
  if (!written.ok()) {
    TRY(remove_tree(boxes_.get(), record.id));
    return std::move(written).error();
  }
  return Held{.directory = std::move(box), .lock = std::move(locked).value()};
}

Result<Home::Held> Home::hold(const std::string& id) const {
  // Whoever tidies up after the box is waited for.
  const UniqueFd turn = TRY(lock());
  UniqueFd box = TRY(directory(id));
  UniqueFd locked = TRY(lock_box(box.get(), id));
  TRY(remove_cgroups(box.get(), id));
  return Held{.directory = std::move(box), .lock = std::move(locked)};
}

Status Home::update(const BoxRecord& record) const {
  const UniqueFd box = TRY(directory(record.id));
  return write_record(box.get(), record);
}

Status Home::write_record(int directory, const BoxRecord& record) const {
  const std::string text = to_json(record);
  const UniqueFd file(
      ::openat(directory, "record.json.new", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file.valid()) return os_error(errno, "cannot write the box's record", path_);
  const ssize_t put = ::write(file.get(), text.data(), text.size());
  int failed = put == static_cast<ssize_t>(text.size()) ? 0 : (put < 0 ? errno : ENOSPC);
  // A kept box's record must survive a power cut; another's box does not.
  if (failed == 0 && record.spec.keep && ::fsync(file.get()) != 0) failed = errno;
  if (failed == 0 && ::renameat(directory, "record.json.new", directory, "record.json") != 0) failed = errno;
  if (failed == 0) return ok_status();
  ::unlinkat(directory, "record.json.new", 0);
  return os_error(failed, "cannot write the box's record", path_);
}

Status Home::remove(const std::string& id) const {
  const auto box = directory(id);
  if (!box.ok() && box.error().code == ErrorCode::kBoxNotFound) return ok_status();
  if (!box.ok()) return Error(box.error());
  if (is_running(box.value().get())) return Error(ErrorCode::kInUse, "a keeper still runs the box " + id);
  TRY(remove_cgroups(box.value().get(), id));
  return remove_tree(boxes_.get(), id);
}

Status Home::tidy(const std::string& id) const {
  const UniqueFd turn = TRY(lock());
  const UniqueFd box = TRY(directory(id));
  return is_running(box.get()) ? ok_status() : remove_cgroups(box.get(), id);
}

Status Home::recover() const {
  const UniqueFd held = TRY(lock());
  for (const std::string& id : TRY(ids())) {
    const auto found = entry(id);
    // A record that cannot be read is somebody's; one that is not there was never finished.
    const bool unfinished = !found.ok() && found.error().code == ErrorCode::kBoxNotFound;
    const bool dead = found.ok() && !found.value().running;
    // What cannot be taken away now keeps nobody from the other boxes: the next open tries again.
    if (unfinished || (dead && !found.value().record.spec.keep)) {
      [[maybe_unused]] const Status removed = remove(id);
    } else if (dead) {
      if (const auto box = directory(id); box.ok()) {
        [[maybe_unused]] const Status removed = remove_cgroups(box.value().get(), id);
      }
    }
  }
  return ok_status();
}

}  // namespace sluicebox::box
