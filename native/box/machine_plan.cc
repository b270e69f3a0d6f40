#include "box/machine_plan.h"

namespace sluicebox::box {

QemuPlan machine_plan(const BoxRecord& record, const std::vector<OpenDisk>& disks, Passed& passed) {
  QemuPlan plan{.memory_bytes = record.spec.memory_bytes.value,
                .vcpus = static_cast<unsigned>(record.spec.vcpus.value),
                .disks = {}};
  for (const OpenDisk& disk : disks) {
    QemuDisk& planned = plan.disks.emplace_back(QemuDisk{.writable = disk.writable, .layers = {}, .size = disk.size});
    for (const OpenLayer& layer : disk.layers)
      planned.layers.push_back({.format = layer.format, .fd = passed.add(layer.file.get())});
  }
  return plan;
}

std::uint64_t layer_bytes(const BoxRecord& record) {
  if (record.spec.host && record.spec.storage_asked) return record.spec.storage_bytes;
  return record.spec.disks[0].mode == DiskMode::kReadonly ? record.spec.memory_bytes.value / 2 : 0;
}

}  // namespace sluicebox::box
