#include "box/record.h"

#include <sys/random.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <nlohmann/json.hpp>

namespace sluicebox::box {

namespace {

using nlohmann::json;

constexpr int kVersion = 1;
constexpr std::size_t kIdBytes = 12;

}  // namespace

json facts_to_json(const FileFacts& facts) {
  json value = {{"path", facts.path},
                {"device", facts.device},
                {"inode", facts.inode},
                {"size", facts.size},
                {"mtimeNs", facts.mtime_ns}};
  if (facts.own) value["own"] = true;
  return value;
}

FileFacts facts_from_json(const json& value) {
  return {.path = value.at("path").get<std::string>(),
          .device = value.at("device").get<std::uint64_t>(),
          .inode = value.at("inode").get<std::uint64_t>(),
          .size = value.at("size").get<std::uint64_t>(),
          .mtime_ns = value.at("mtimeNs").get<std::int64_t>(),
          .own = value.value("own", false)};
}

bool is_same(const FileFacts& now, const FileFacts& noted) {
  if (now.device != noted.device || now.inode != noted.inode) return false;
  return noted.own || (now.path == noted.path && now.size == noted.size && now.mtime_ns == noted.mtime_ns);
}

namespace {

json to_json(const LimitSpec& limit) { return {{"value", limit.value}, {"asked", limit.asked}}; }

LimitSpec limit_from(const json& value) {
  return {.value = value.at("value").get<std::uint64_t>(), .asked = value.at("asked").get<bool>()};
}

constexpr std::array<const char*, 3> kDiskModes = {"overlay", "direct", "readonly"};

json to_json(const DiskSpec& disk) {
  json value = {{"path", disk.path}, {"mode", kDiskModes[static_cast<std::size_t>(disk.mode)]}};
  if (disk.format) value["format"] = *disk.format;
  return value;
}

DiskSpec disk_spec_from(const json& value) {
  DiskSpec disk{.path = value.at("path").get<std::string>(), .format = std::nullopt, .mode = DiskMode::kOverlay};
  if (value.contains("format")) disk.format = value.at("format").get<std::string>();
  const auto mode = std::find(kDiskModes.begin(), kDiskModes.end(), value.at("mode").get<std::string>());
  if (mode != kDiskModes.end()) disk.mode = static_cast<DiskMode>(mode - kDiskModes.begin());
  return disk;
}

json to_json(const DiskRecord& disk) {
  json bases = json::array();
  for (const FileFacts& base : disk.bases) bases.push_back(facts_to_json(base));
  json value = {{"format", disk.format}, {"overlay", disk.overlay}, {"bases", std::move(bases)}};
  if (disk.next_bases) {
    value["nextBases"] = json::array();
    for (const FileFacts& base : *disk.next_bases) value["nextBases"].push_back(facts_to_json(base));
  }
  return value;
}

DiskRecord disk_from(const json& value) {
  DiskRecord disk{.format = value.at("format").get<std::string>(),
                  .overlay = value.at("overlay").get<std::string>(),
                  .bases = {},
                  .next_bases = std::nullopt};
  for (const json& base : value.at("bases")) disk.bases.push_back(facts_from_json(base));
  if (value.contains("nextBases")) {
    disk.next_bases.emplace();
    for (const json& base : value.at("nextBases")) disk.next_bases->push_back(facts_from_json(base));
  }
  return disk;
}

BoxRecord record_from(const json& value) {
  BoxRecord record;
  record.id = value.at("id").get<std::string>();
  record.created_at_ms = value.at("createdAtMs").get<std::int64_t>();
  record.first_uid = value.at("firstUid").get<std::uint32_t>();
  BoxSpec& spec = record.spec;
  if (value.contains("name")) spec.name = value.at("name").get<std::string>();
  spec.keep = value.at("keep").get<bool>();
  if (value.contains("directory")) spec.directory = value.at("directory").get<std::string>();
  if (value.contains("machine")) {
    const json& machine = value.at("machine");
    spec.machine = true;
    spec.host = machine.value("host", false);
    for (const json& disk : machine.at("disks")) spec.disks.push_back(disk_spec_from(disk));
    for (const json& disk : machine.at("made")) record.disks.push_back(disk_from(disk));
  }
  spec.memory_bytes = limit_from(value.at("memoryBytes"));
  spec.vcpus = limit_from(value.at("vcpus"));
  spec.processes = limit_from(value.at("processes"));
  spec.storage_bytes = value.at("storageBytes").get<std::uint64_t>();
  spec.storage_asked = value.at("storageAsked").get<bool>();
  spec.config = value.at("config").get<std::string>();
  return record;
}

}  // namespace

Result<std::string> new_box_id() {
  std::array<unsigned char, kIdBytes> bytes{};
  if (::getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) {
    return os_error(errno, "cannot get random bytes");
  }
  constexpr const char* kDigits = "0123456789abcdef";
  std::string id;
  for (const unsigned char byte : bytes) {
    id += kDigits[byte >> 4];
    id += kDigits[byte & 15];
  }
  return id;
}

bool is_box_id(std::string_view text) {
  return text.size() == 2 * kIdBytes &&
         std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

std::string to_json(const BoxRecord& record) {
  const BoxSpec& spec = record.spec;
  json value = {{"version", kVersion},
                {"id", record.id},
                {"createdAtMs", record.created_at_ms},
                {"firstUid", record.first_uid},
                {"keep", spec.keep},
                {"memoryBytes", to_json(spec.memory_bytes)},
                {"vcpus", to_json(spec.vcpus)},
                {"processes", to_json(spec.processes)},
                {"storageBytes", spec.storage_bytes},
                {"storageAsked", spec.storage_asked},
                {"config", spec.config}};
  if (spec.name) value["name"] = *spec.name;
  if (spec.directory) value["directory"] = *spec.directory;
  if (spec.machine) {
    json disks = json::array();
    json made = json::array();
    for (const DiskSpec& disk : spec.disks) disks.push_back(to_json(disk));
    for (const DiskRecord& disk : record.disks) made.push_back(to_json(disk));
    value["machine"] = {{"disks", std::move(disks)}, {"made", std::move(made)}};
    if (spec.host) value["machine"]["host"] = true;
  }
  // Paths need not be UTF-8; what is not is replaced rather than thrown over.
  return value.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

Result<BoxRecord> from_json(std::string_view text) {
  const json value = json::parse(text, nullptr, false);
  if (!value.is_object()) return Error(ErrorCode::kIo, "the record is not JSON");
  // The library says by exception that a field is missing or of another type; it ends here.
  try {
    if (const int version = value.at("version").get<int>(); version != kVersion) {
      return Error(ErrorCode::kHomeIncompatible, "the record is of version " + std::to_string(version) +
                                                     ", this release reads " + std::to_string(kVersion));
    }
    BoxRecord record = record_from(value);
    if (!is_box_id(record.id)) return Error(ErrorCode::kIo, "the record's id is none");
    return record;
  } catch (const json::exception& error) {
    return Error(ErrorCode::kIo, std::string("the record is damaged: ") + error.what());
  }
}

}  // namespace sluicebox::box
