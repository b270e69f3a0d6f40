#include "walls/cgroup.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/unique_fd.h"
#include "walls/cgroup_tree.h"
#include "walls/failure.h"

namespace sluicebox::walls {

namespace {

constexpr std::uint64_t kPeriodUs = 100000;
constexpr std::uint64_t kPage = 4096;

struct LimitRow {
  const char* name;  // as messages have it
  const char* controller;
};
enum : std::size_t { kMemory, kCpu, kProcesses };
constexpr LimitRow kLimits[] = {{"memory", "memory"}, {"vcpus", "cpu"}, {"process", "pids"}};

std::string refusal(std::size_t limit) {
  const uid_t user = ::geteuid();
  return std::string(kLimits[limit].name) + " limit: this host's cgroups do not let " +
         (user == 0 ? "root" : "uid " + std::to_string(user)) + " set one";
}

Error not_to_be_had(std::size_t limit, int saved_errno, std::string path) {
  Error error(ErrorCode::kUnsupported, refusal(limit));
  error.os_error = saved_errno;
  error.path = std::move(path);
  error.hint = "leave the limit out, or delegate the controller " + std::string(kLimits[limit].controller) +
               " to this user (systemd-run --user --scope -p Delegate=yes)";
  return error;
}

Status write_file(const std::string& path, const std::string& value) {
  const UniqueFd file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!file.valid() || ::write(file.get(), value.data(), value.size()) != static_cast<ssize_t>(value.size()))
    return failure(errno, "write a cgroup's file", path);
  return ok_status();
}

std::uint64_t difference(std::uint64_t a, std::uint64_t b) { return a > b ? a - b : b - a; }

// The first line is what was written, but for rounding to pages.
bool holds(const std::string& text, const std::string& value, std::uint64_t slack) {
  const std::string line = text.substr(0, text.find('\n'));
  if (line == value) return true;
  if (slack == 0) return false;
  return difference(std::strtoull(line.c_str(), nullptr, 10), std::strtoull(value.c_str(), nullptr, 10)) < slack;
}

std::string next_to(const std::string& base, const std::string& name) { return base + "/" + name; }

}  // namespace

Result<Cgroups> Cgroups::plan(const std::string& name, const CgroupLimits& limits) {
  const WantedLimit wanted[] = {limits.memory_bytes, limits.vcpus, limits.processes};
  Cgroups made;
  if (std::all_of(std::begin(wanted), std::end(wanted), [](const WantedLimit& one) { return one.value == 0; }))
    return made;
  const CgroupTree tree = TRY(CgroupTree::of_this_process());
  for (std::size_t limit = 0; limit < std::size(wanted); ++limit) {
    if (wanted[limit].value == 0) continue;
    const Controller found = tree.find(kLimits[limit].controller);
    if (found.version == 0) {
      if (wanted[limit].asked) return not_to_be_had(limit, 0, {});
      made.warnings_.push_back(refusal(limit));
      continue;
    }
    const bool v1 = found.version == 1;
    const std::string directory = next_to(found.base, name);
    if (std::find(made.directories_.begin(), made.directories_.end(), directory) == made.directories_.end())
      made.directories_.push_back(directory);
    const auto set = [&](const char* file, std::string value, std::uint64_t slack = 0, bool optional = false) {
      made.settings_.push_back({directory, file, std::move(value), slack, optional, limit, wanted[limit].asked});
    };
    const std::string value = std::to_string(wanted[limit].value);
    if (limit == kMemory) {
      set(v1 ? "memory.limit_in_bytes" : "memory.max", value, kPage);
      // No swap beyond it: v1 counts memory and swap together, v2 swap alone.
      set(v1 ? "memory.memsw.limit_in_bytes" : "memory.swap.max", v1 ? value : "0", kPage, true);
      made.oom_file_ = directory + (v1 ? "/memory.oom_control" : "/memory.events");
    } else if (limit == kCpu) {
      const std::string quota = std::to_string(wanted[limit].value * kPeriodUs);
      const std::string period = std::to_string(kPeriodUs);
      if (v1) set("cpu.cfs_period_us", period);
      if (v1)
        set("cpu.cfs_quota_us", quota);
      else
        set("cpu.max", std::string(quota).append(" ").append(period));
    } else {
      // One more: PID 1.
      set("pids.max", std::to_string(wanted[limit].value + 1));
    }
  }
  return made;
}

Status Cgroups::apply(const Setting& setting) const {
  const std::string path = next_to(setting.directory, setting.file);
  auto written = write_file(path, setting.value);
  if (!written.ok() && setting.optional && written.error().os_error == ENOENT) return ok_status();
  TRY(std::move(written));
  if (!holds(read_small(path), setting.value, setting.slack)) return failure(EINVAL, "set a cgroup's limit", path);
  return ok_status();
}

Status Cgroups::make() {
  std::vector<Setting> wanted;
  wanted.swap(settings_);
  std::size_t dropped = std::size(kLimits);
  for (const Setting& setting : wanted) {
    if (setting.limit == dropped) continue;
    auto done = ok_status();
    const bool there = std::find(made_.begin(), made_.end(), setting.directory) != made_.end();
    if (!there && ::mkdir(setting.directory.c_str(), 0755) != 0)
      done = failure(errno, "make a cgroup", setting.directory);
    else if (!there)
      made_.push_back(setting.directory);
    if (done.ok()) done = apply(setting);
    if (done.ok()) continue;
    if (setting.asked) return not_to_be_had(setting.limit, done.error().os_error, done.error().path);
    dropped = setting.limit;
    warnings_.push_back(refusal(setting.limit));
    if (setting.limit == kMemory) oom_file_.clear();
  }
  return ok_status();
}

Status Cgroups::join(pid_t process) const {
  for (const std::string& directory : made_) TRY(write_file(directory + "/cgroup.procs", std::to_string(process)));
  return ok_status();
}

std::uint64_t Cgroups::oom_kills() const {
  if (oom_file_.empty()) return 0;
  const std::string text = read_small(oom_file_);
  const std::size_t at = text.find("oom_kill ");
  return at == std::string::npos ? 0 : std::strtoull(text.c_str() + at + std::strlen("oom_kill "), nullptr, 10);
}

std::vector<std::string> Cgroups::remove() {
  std::vector<std::string> left;
  for (const std::string& directory : made_) {
    // The kernel lets go of the last process a moment after its end was reported.
    for (int tries = 0; ::rmdir(directory.c_str()) != 0 && errno != ENOENT; ++tries) {
      if (errno != EBUSY || tries == 100) {
        left.push_back(directory + ": " + std::strerror(errno));
        break;
      }
      ::poll(nullptr, 0, 10);
    }
  }
  made_.clear();
  return left;
}

}  // namespace sluicebox::walls
