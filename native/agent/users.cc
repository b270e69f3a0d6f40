#include "agent/users.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>

#include "base/unique_fd.h"

namespace sluicebox::agent {

namespace {

// A box's own program can make these files as long as it likes.
constexpr std::size_t kMaxText = std::size_t{4} * 1024 * 1024;
constexpr std::size_t kMaxGroups = 65536;  // the kernel's NGROUPS_MAX

struct PasswdEntry {
  std::string_view name;
  uid_t uid = 0;
  gid_t gid = 0;
};

std::string_view cut(std::string_view& text, char separator) {
  const std::size_t at = text.find(separator);
  const std::string_view part = text.substr(0, at);
  text.remove_prefix(at == std::string_view::npos ? text.size() : at + 1);
  return part;
}

std::optional<std::uint32_t> number(std::string_view text) {
  std::uint32_t value = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failed != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return value;
}

// name:password:uid:gid:...
std::optional<PasswdEntry> passwd_entry(std::string_view line) {
  const std::string_view name = cut(line, ':');
  cut(line, ':');
  const auto uid = number(cut(line, ':'));
  const auto gid = number(cut(line, ':'));
  if (name.empty() || !uid || !gid) return std::nullopt;
  return PasswdEntry{.name = name, .uid = *uid, .gid = *gid};
}

template <typename Matches>
std::optional<PasswdEntry> find_entry(std::string_view passwd, Matches matches) {
  while (!passwd.empty()) {
    const auto entry = passwd_entry(cut(passwd, '\n'));
    if (entry && matches(*entry)) return entry;
  }
  return std::nullopt;
}

bool lists(std::string_view members, std::string_view name) {
  while (!members.empty()) {
    if (cut(members, ',') == name) return true;
  }
  return false;
}

// name:password:gid:member,member
void add_groups(std::string_view group, std::string_view name, std::vector<gid_t>& groups) {
  while (!group.empty() && groups.size() < kMaxGroups) {
    std::string_view line = cut(group, '\n');
    cut(line, ':');
    cut(line, ':');
    const auto gid = number(cut(line, ':'));
    if (!gid || !lists(line, name)) continue;
    if (std::find(groups.begin(), groups.end(), *gid) == groups.end()) groups.push_back(*gid);
  }
}

bool same(const struct stat& one, const struct stat& other) {
  return one.st_dev == other.st_dev && one.st_ino == other.st_ino && one.st_size == other.st_size &&
         one.st_ctim.tv_sec == other.st_ctim.tv_sec && one.st_ctim.tv_nsec == other.st_ctim.tv_nsec;
}

}  // namespace

std::string_view WatchedFile::text() {
  struct stat now{};
  if (::stat(path_, &now) == 0 && same(now, seen_)) return text_;
  text_.clear();
  seen_ = {};
  // A FIFO in its place must not hold the agent up.
  const UniqueFd file(::open(path_, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  if (!file.valid() || ::fstat(file.get(), &now) != 0 || !S_ISREG(now.st_mode)) return text_;
  std::array<char, 16384> chunk;
  while (text_.size() < kMaxText) {
    const ssize_t got = ::read(file.get(), chunk.data(), chunk.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    text_.append(chunk.data(), static_cast<std::size_t>(got));
  }
  seen_ = now;
  return text_;
}

std::optional<Identity> Users::find(const protocol::User& user) {
  const std::string_view passwd = passwd_.text();
  std::optional<PasswdEntry> entry;
  std::optional<std::uint32_t> uid = user.kind == protocol::User::Kind::kRoot ? 0 : user.uid;
  if (user.kind == protocol::User::Kind::kName) {
    entry = find_entry(passwd, [&](const PasswdEntry& other) { return other.name == user.name; });
    uid = number(user.name);
  }
  if (!entry && uid) entry = find_entry(passwd, [&](const PasswdEntry& other) { return other.uid == *uid; });
  if (!entry && !uid) return std::nullopt;

  Identity identity;
  identity.uid = entry ? entry->uid : *uid;
  identity.gid = user.gid.value_or(entry ? entry->gid : 0);
  identity.groups.push_back(identity.gid);
  if (entry) add_groups(group_.text(), entry->name, identity.groups);
  return identity;
}

}  // namespace sluicebox::agent
