#include "box/snapshots.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <set>

#include "base/directory.h"
#include "box/removal.h"
#include "box/sealed_memory.h"
#include "image/open_file.h"

namespace sluicebox::box {

namespace {

using nlohmann::json;

constexpr const char* kFolder = "snapshots";
constexpr const char* kRecord = "snapshot.json";
constexpr const char* kState = "state";
constexpr std::size_t kMaxRecord = std::size_t{1} << 20;
constexpr int kSnapshotVersion = 1;

Result<UniqueFd> open_folder(int at, const std::string& name) {
  UniqueFd folder(::openat(at, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!folder.valid()) return os_error(errno, "cannot open a directory of the box's snapshots");
  return folder;
}

Result<UniqueFd> make_folder(int at, const std::string& name) {
  if (::mkdirat(at, name.c_str(), 0700) != 0 && errno != EEXIST)
    return os_error(errno, "cannot make a directory for the box's snapshots");
  return open_folder(at, name);
}

json to_json(const SnapshotRecord& record) {
  json disks = json::array();
  for (const SnapshotDisk& disk : record.disks) {
    json bases = json::array();
    for (const FileFacts& base : disk.bases) bases.push_back(facts_to_json(base));
    disks.push_back({{"overlay", disk.overlay}, {"size", disk.size}, {"bases", std::move(bases)}});
  }
  return {{"version", kSnapshotVersion},  {"id", record.id},
          {"name", record.name},          {"createdAtMs", record.created_at_ms},
          {"memory", record.memory},      {"bytes", record.bytes},
          {"pausedMs", record.paused_ms}, {"parent", record.parent},
          {"labels", record.labels},      {"qemu", record.qemu},
          {"disks", std::move(disks)}};
}

SnapshotRecord snapshot_from(const json& value) {
  SnapshotRecord record{.id = value.at("id").get<std::string>(),
                        .name = value.at("name").get<std::string>(),
                        .created_at_ms = value.at("createdAtMs").get<std::int64_t>(),
                        .memory = value.at("memory").get<bool>(),
                        .bytes = value.at("bytes").get<std::uint64_t>(),
                        .paused_ms = value.at("pausedMs").get<double>(),
                        .parent = value.at("parent").get<std::string>(),
                        .labels = value.at("labels").get<std::string>(),
                        .qemu = value.at("qemu").get<std::string>(),
                        .disks = {}};
  for (const json& each : value.at("disks")) {
    SnapshotDisk disk{
        .overlay = each.at("overlay").get<std::string>(), .bases = {}, .size = each.at("size").get<std::uint64_t>()};
    for (const json& base : each.at("bases")) disk.bases.push_back(facts_from_json(base));
    record.disks.push_back(std::move(disk));
  }
  return record;
}

// Nothing, for what is no snapshot: half-made, or not to be read.
std::optional<SnapshotRecord> read_snapshot(int snapshots, const std::string& id) {
  const auto folder = open_folder(snapshots, id);
  if (!folder.ok()) return std::nullopt;
  const UniqueFd file(::openat(folder.value().get(), kRecord, O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!file.valid()) return std::nullopt;
  const auto bytes = read_whole(file.get(), kMaxRecord, "a snapshot's record", {});
  if (!bytes.ok()) return std::nullopt;
  const auto* text = reinterpret_cast<const char*>(bytes.value().data());  // bytes as characters
  const json value = json::parse(text, text + bytes.value().size(), nullptr, false);
  try {
    if (value.is_discarded() || value.at("version").get<int>() != kSnapshotVersion) return std::nullopt;
    return snapshot_from(value);
  } catch (const json::exception&) {
    return std::nullopt;
  }
}

std::vector<std::string> names_in(int directory) {
  std::vector<std::string> names;
  const int copy = ::openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (copy < 0) return {std::string()};  // no name that anything has
  const UniqueDirectory list(::fdopendir(copy));
  while (const dirent* each = ::readdir(list.get())) names.emplace_back(each->d_name);
  return names;
}

bool is_layer(const std::string& name) {
  return name.ends_with(".qcow2") && (name.starts_with("disk") || name.starts_with("step"));
}

void add_layers(std::set<std::string>& used, const std::string& overlay, const std::vector<FileFacts>& bases) {
  used.insert(overlay);
  for (const FileFacts& base : bases) used.insert(image::last_part(base.path));
}

}  // namespace

Result<std::vector<SnapshotRecord>> list_snapshots(int box_directory) {
  std::vector<SnapshotRecord> list;
  const auto folder = open_folder(box_directory, kFolder);
  if (!folder.ok() && folder.error().os_error == ENOENT) return list;
  if (!folder.ok()) return Error(folder.error());
  for (const std::string& name : names_in(folder.value().get())) {
    if (!is_box_id(name)) continue;
    if (auto record = read_snapshot(folder.value().get(), name)) list.push_back(*std::move(record));
  }
  std::sort(list.begin(), list.end(), [](const SnapshotRecord& a, const SnapshotRecord& b) {
    return std::tie(a.created_at_ms, a.id) < std::tie(b.created_at_ms, b.id);
  });
  return list;
}

Result<SnapshotRecord> find_snapshot(int box_directory, const std::string& name_or_id) {
  for (SnapshotRecord& each : TRY(list_snapshots(box_directory))) {
    if (each.name == name_or_id || each.id == name_or_id) return std::move(each);
  }
  return Error(ErrorCode::kSnapshotNotFound, "the box has no snapshot \"" + name_or_id + "\"");
}

Result<UniqueFd> begin_snapshot(int box_directory, const std::string& id) {
  const UniqueFd folder = TRY(make_folder(box_directory, kFolder));
  return make_folder(folder.get(), id);
}

Status finish_snapshot(int box_directory, const SnapshotRecord& record) {
  const UniqueFd folder = TRY(open_folder(box_directory, kFolder));
  const UniqueFd place = TRY(open_folder(folder.get(), record.id));
  const std::string text = to_json(record).dump(2, ' ', false, json::error_handler_t::replace) + "\n";
  const std::string fresh = std::string(kRecord) + ".new";
  const UniqueFd file(::openat(place.get(), fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!file.valid()) return os_error(errno, "cannot write a snapshot's record");
  if (::write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()) || ::fsync(file.get()) != 0 ||
      ::renameat(place.get(), fresh.c_str(), place.get(), kRecord) != 0)
    return os_error(errno == 0 ? ENOSPC : errno, "cannot write a snapshot's record");
  return ok_status();
}

Status drop_snapshot(int box_directory, const std::string& id) {
  const UniqueFd folder = TRY(open_folder(box_directory, kFolder));
  return remove_tree(folder.get(), id);
}

Result<UniqueFd> open_state(int box_directory, const std::string& id) {
  const UniqueFd folder = TRY(open_folder(box_directory, kFolder));
  const UniqueFd place = TRY(open_folder(folder.get(), id));
  UniqueFd state(::openat(place.get(), kState, O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!state.valid()) return os_error(errno, "cannot open a snapshot's memory");
  return state;
}

namespace {

// How many snapshots there are, whether they can be read or not; when that cannot be told, more than there can be.
std::size_t count_whole(int box_directory) {
  const auto folder = open_folder(box_directory, kFolder);
  if (!folder.ok()) return folder.error().os_error == ENOENT ? 0 : SIZE_MAX;
  std::size_t count = 0;
  for (const std::string& name : names_in(folder.value().get())) {
    const std::string record = name + "/" + kRecord;
    if (!is_box_id(name)) continue;
    if (::faccessat(folder.value().get(), record.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) == 0 || errno != ENOENT) ++count;
  }
  return count;
}

}  // namespace

void drop_half_made(int box_directory) {
  const auto folder = open_folder(box_directory, kFolder);
  if (!folder.ok()) return;
  for (const std::string& name : names_in(folder.value().get())) {
    const std::string record = name + "/" + kRecord;
    if (is_box_id(name) && ::faccessat(folder.value().get(), record.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) != 0 &&
        errno == ENOENT) [[maybe_unused]]
      const Status removed = remove_tree(folder.value().get(), name);
  }
}

Result<std::set<std::string>> layers_of_snapshots(int box_directory) {
  const auto snapshots = TRY(list_snapshots(box_directory));
  // One that cannot be read has layers too.
  if (snapshots.size() != count_whole(box_directory))
    return Error(ErrorCode::kIo, "a snapshot of the box has a record that cannot be read");
  std::set<std::string> used;
  for (const SnapshotRecord& snapshot : snapshots) {
    for (const SnapshotDisk& disk : snapshot.disks) add_layers(used, disk.overlay, disk.bases);
  }
  return used;
}

void drop_unused_layers(int box_directory, const BoxRecord& record) {
  auto of_snapshots = layers_of_snapshots(box_directory);
  if (!of_snapshots.ok()) return;
  std::set<std::string> used = std::move(of_snapshots).value();
  for (const DiskRecord& disk : record.disks) {
    add_layers(used, disk.overlay, disk.bases);
    add_layers(used, disk.overlay, disk.next_bases.value_or(std::vector<FileFacts>()));
  }
  for (const std::string& name : names_in(box_directory)) {
    if (is_layer(name) && !used.contains(name)) ::unlinkat(box_directory, name.c_str(), 0);
  }
}

std::string free_layer_name(int box_directory, std::size_t disk) {
  for (unsigned number = 1;; ++number) {
    std::string name = "disk" + std::to_string(disk) + "-" + std::to_string(number) + ".qcow2";
    if (::faccessat(box_directory, name.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) != 0) return name;
  }
}

std::uint64_t space_of(int directory, const std::string& name) {
  struct stat facts{};
  if (::fstatat(directory, name.c_str(), &facts, AT_SYMLINK_NOFOLLOW) != 0) return 0;
  return std::uint64_t{512} * static_cast<std::uint64_t>(facts.st_blocks);
}

bool is_own(int box_directory, const FileFacts& file) {
  struct stat there{};
  return ::fstatat(box_directory, image::last_part(file.path).c_str(), &there, AT_SYMLINK_NOFOLLOW) == 0 &&
         there.st_dev == file.device && there.st_ino == file.inode;
}

bool is_own_layer(int box_directory, const FileFacts& file) {
  return is_layer(image::last_part(file.path)) && is_own(box_directory, file);
}

}  // namespace sluicebox::box
