#include "walls/cgroup_tree.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "base/unique_fd.h"
#include "walls/failure.h"

namespace sluicebox::walls {

namespace {

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    const std::size_t end = text.find(separator);
    parts.emplace_back(text.substr(0, end));
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
  }
  return parts;
}

bool lists(const std::string& words, char separator, std::string_view word) {
  for (const std::string& one : split(words, separator))
    if (one == word) return true;
  return false;
}

// "4:memory:/a/b" and "0::/a/b": the path of the first line whose controllers are these.
std::string membership(std::string_view memberships, int version, const std::string& controllers) {
  for (const std::string& line : split(memberships, '\n')) {
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string named = line.substr(first + 1, second - first - 1);
    const bool matches = version == 2 ? named.empty() : !named.empty() && lists(controllers, ',', split(named, ',')[0]);
    if (matches) return line.substr(second + 1);
  }
  return "/";
}

std::string trimmed(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  return text;
}

std::string parent_of(const std::string& path) { return path.substr(0, path.rfind('/')); }

}  // namespace

std::string read_small(const std::string& path) {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return {};
  std::string text;
  char buffer[4096];
  for (ssize_t got = 0; (got = ::read(file.get(), buffer, sizeof buffer)) > 0;)
    text.append(buffer, static_cast<std::size_t>(got));
  return text;
}

Result<CgroupTree> CgroupTree::of_this_process() {
  const std::string mounts = read_small("/proc/self/mountinfo");
  if (mounts.empty()) return failure(errno, "read the table of mounts", "/proc/self/mountinfo");
  return parse(mounts, read_small("/proc/self/cgroup"));
}

CgroupTree CgroupTree::parse(std::string_view mountinfo, std::string_view memberships) {
  CgroupTree tree;
  for (const std::string& line : split(mountinfo, '\n')) {
    // id parent major:minor root mount-point options [optional ...] - type source super-options
    const std::size_t dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    const auto before = split(std::string_view(line).substr(0, dash), ' ');
    const auto after = split(std::string_view(line).substr(dash + 3), ' ');
    if (before.size() < 6 || after.size() < 3 || (after[0] != "cgroup" && after[0] != "cgroup2")) continue;
    Hierarchy found;
    found.version = after[0] == "cgroup2" ? 2 : 1;
    found.controllers = after[2];
    found.mount_point = before[4];
    std::string own = membership(memberships, found.version, found.controllers);
    // What is mounted may be a part of the hierarchy: a container's.
    const std::string& root = before[3];
    if (root != "/" && own.starts_with(root)) own = own.substr(root.size());
    found.own = trimmed(found.mount_point + (own == "/" ? "" : own));
    tree.hierarchies_.push_back(std::move(found));
  }
  return tree;
}

Controller CgroupTree::find(std::string_view controller) const {
  for (const Hierarchy& one : hierarchies_) {
    if (one.version == 1) {
      if (lists(one.controllers, ',', controller)) return {1, one.own};
      continue;
    }
    // A v2 directory with processes of its own, as ours is, hands no controllers down; its parent may.
    for (const std::string& base : {one.own, parent_of(one.own)}) {
      if (base.size() < one.mount_point.size()) continue;
      if (lists(trimmed(read_small(base + "/cgroup.subtree_control")), ' ', controller)) return {2, base};
    }
  }
  return {};
}

}  // namespace sluicebox::walls
