#include "box/ingredients.h"

#include <sys/stat.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "box/digest.h"
#include "box/host_clock.h"
#include "box/machine_plan.h"

namespace sluicebox::box {

namespace {

using nlohmann::json;

// Read into this process's memory at once.
constexpr std::uint64_t kMostMemory = std::uint64_t{1} << 30;

// When the file, its name or its owner were changed last, which nobody can set.
std::int64_t change_of(const UniqueFd& file) {
  struct stat facts{};
  if (::fstat(file.get(), &facts) != 0) return 0;
  return std::int64_t{facts.st_ctim.tv_sec} * 1'000'000'000 + facts.st_ctim.tv_nsec;
}

}  // namespace

std::string Ingredients::key() const { return digest_of(as_bytes(text)); }

Ingredients ingredients_of(const BoxRecord& record, const std::vector<OpenDisk>& disks, const std::string& boot_files,
                           const std::string& qemu) {
  Passed passed;
  QemuPlan plan = machine_plan(record, disks, passed);
  // It boots, so the kernel's own command line is part of it.
  plan.kernel = plan.initrd = 0;
  json of = {{"boot", boot_files},
             {"qemu", qemu},
             {"command", qemu_command(plan)},
             {"processes", record.spec.processes.value},
             {"layer", layer_bytes(record)},
             {"host", record.spec.host},
             {"disks", json::array()}};
  for (std::size_t i = 0; i < disks.size(); ++i) {
    json bases = json::array();
    for (const FileFacts& base : record.disks[i].bases) bases.push_back(facts_to_json(base));
    // A file that was made anew can have all that a record notes, but not this.
    json changes = json::array();
    for (std::size_t layer = record.disks[i].overlay.empty() ? 0 : 1; layer < disks[i].layers.size(); ++layer)
      changes.push_back(change_of(disks[i].layers[layer].file));
    of["disks"].push_back({{"size", disks[i].size},
                           {"overlay", record.disks[i].overlay},
                           {"bases", std::move(bases)},
                           {"changes", std::move(changes)}});
  }
  return {.text = of.dump(-1, ' ', false, json::error_handler_t::replace),
          .time_stamp_khz = time_stamp_khz().value_or(0)};
}

bool has_like_ones(const BoxRecord& record, const std::vector<OpenDisk>& disks) {
  const auto is_direct = [](const DiskSpec& disk) { return disk.mode == DiskMode::kDirect; };
  const auto is_file = [](const OpenLayer& layer) {
    struct stat facts{};
    return ::fstat(layer.file.get(), &facts) == 0 && S_ISREG(facts.st_mode);
  };
  return !record.spec.directory && record.spec.memory_bytes.value <= kMostMemory && time_stamp_khz().has_value() &&
         std::none_of(record.spec.disks.begin(), record.spec.disks.end(), is_direct) &&
         std::all_of(disks.begin(), disks.end(), [&](const OpenDisk& disk) {
           return std::all_of(disk.layers.begin(), disk.layers.end(), is_file);
         });
}

}  // namespace sluicebox::box
