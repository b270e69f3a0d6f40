#include "box/qemu_command.h"

#include <nlohmann/json.hpp>

namespace sluicebox::box {

namespace {

using nlohmann::json;

// For the emulator: no randomised kernel and no mitigations, which cost much there and wall off nothing (the guest is
// the only one in its QEMU). The rest is time that a boot does not need: probes, self-tests, messages.
constexpr const char* kKernelCommandLine =
    "console=ttyS0 quiet loglevel=3 panic=-1 reboot=t random.trust_cpu=on tsc=reliable no_timer_check "
    "cryptomgr.notests nokaslr mitigations=off";

std::string text(int number) { return std::to_string(number); }

// The layer at `index` with all below it. QEMU opens files by name only, and a set of descriptors has one.
json layer_node(const QemuDisk& disk, std::size_t disk_index, std::size_t index) {
  const QemuLayer& layer = disk.layers[index];
  const bool writable = disk.writable && index == 0;
  std::string name = disk_node(disk_index);
  if (index > 0) name.append("-").append(std::to_string(index));
  json node = {{"driver", image::format_name(layer.format)},
               {"node-name", name},
               {"read-only", !writable},
               {"discard", "unmap"},
               {"file",
                {{"driver", "file"},
                 {"node-name", name + "-file"},
                 {"filename", "/dev/fdset/" + text(layer.fd)},
                 {"read-only", !writable},
                 {"discard", "unmap"}}}};
  if (layer.format == image::DiskFormat::kQcow2) {
    const bool last = index + 1 == disk.layers.size();
    node["backing"] = last ? json(nullptr) : layer_node(disk, disk_index, index + 1);
  }
  return node;
}

json empty_node(const QemuDisk& disk, std::size_t index) {
  return {{"driver", "null-co"},
          {"node-name", disk_node(index)},
          {"size", disk.size},
          {"read-zeroes", true},
          {"read-only", !disk.writable}};
}

}  // namespace

std::string disk_serial(std::size_t disk) { return "slu" + std::to_string(disk); }
std::string disk_node(std::size_t disk) { return "disk" + std::to_string(disk); }

std::vector<std::string> qemu_command(const QemuPlan& plan) {
  std::vector<std::string> line = {kQemuProgram, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"};
  const auto add = [&line](std::initializer_list<std::string> words) { line.insert(line.end(), words); };
  add({"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"});
  std::string machine = "q35,usb=off,sata=off,smbus=off,vmport=off,hpet=off,graphics=off";
  if (plan.memory >= 0) {
    // By the name that QEMU gives a memory of its own: a state that was written with that is read with this.
    add({"-object", "memory-backend-file,id=pc.ram,size=" + std::to_string(plan.memory_bytes) +
                        "B,mem-path=/proc/self/fd/" + text(plan.memory) +
                        ",share=" + (plan.memory_shared ? "on" : "off")});
    machine += ",memory-backend=pc.ram";
  }
  add({"-M", machine});
  add({"-accel", "tcg,tb-size=64"});
  add({"-m", "size=" + std::to_string(plan.memory_bytes) + "B"});
  add({"-smp", std::to_string(plan.vcpus)});
  if (plan.kernel >= 0) {
    add({"-kernel", "/proc/self/fd/" + text(plan.kernel), "-initrd", "/proc/self/fd/" + text(plan.initrd)});
    std::string words = kKernelCommandLine;
    if (plan.time_stamp_khz) words.append(" tsc_early_khz=").append(std::to_string(*plan.time_stamp_khz));
    add({"-append", words});
  } else {
    add({"-incoming", "defer", "-S"});
  }
  add({"-chardev", "socket,id=agent,fd=" + text(plan.agent)});
  add({"-device", "virtio-serial-pci", "-device", "virtserialport,chardev=agent,name=slu.agent"});
  add({"-chardev", "socket,id=console,fd=" + text(plan.console), "-serial", "chardev:console"});
  add({"-chardev", "socket,id=qmp,fd=" + text(plan.qmp), "-mon", "chardev=qmp,mode=control"});
  add({"-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng"});
  for (std::size_t i = 0; i < plan.disks.size(); ++i) {
    const QemuDisk& disk = plan.disks[i];
    for (const QemuLayer& layer : disk.layers) add({"-add-fd", "fd=" + text(layer.fd) + ",set=" + text(layer.fd)});
    add({"-blockdev", (disk.layers.empty() ? empty_node(disk, i) : layer_node(disk, i, 0)).dump()});
    add({"-device",
         "virtio-blk-pci,drive=" + disk_node(i) + ",serial=" + disk_serial(i) + ",id=virtio-" + disk_node(i)});
  }
  return line;
}

}  // namespace sluicebox::box
