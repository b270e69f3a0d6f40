#include "box/initrd.h"

#include <string>
#include <vector>

#include "box/cpio.h"
#include "box/kernel_modules.h"
#include "box/sealed_memory.h"

namespace sluicebox::box {

namespace {

constexpr std::size_t kMostProgram = std::size_t{256} * 1024 * 1024;

// Each only where it is not built into the kernel.
constexpr ModuleWanted kModules[] = {
    {"virtio_pci", true},
    {"virtio_console", true},
    {"virtio_blk", true},
    {"virtio_rng", false},
    {"virtio_balloon", false},
    // The checksum of ext4 and erofs, which the kernel would ask a program of ours to load.
    {"crc32c_generic", false},
    {"ext4", false},
    {"erofs", false},
    {"overlay", false},
};

}  // namespace

Result<UniqueFd> build_initrd(const GuestKernel& kernel, int agent_binary_fd) {
  const auto agent = TRY(read_whole(agent_binary_fd, kMostProgram, "the agent", {}));
  const auto modules = TRY(ModuleTree(kernel.modules_path).load(kModules));
  std::string order;
  for (const KernelModule& module : modules) order += module.file_name + "\n";

  Cpio archive;
  archive.directory("dev", 0755);
  // The kernel opens it for the first program before that can have mounted anything.
  archive.character_device("dev/console", 0600, 5, 1);
  for (const char* name : {"proc", "sys"}) archive.directory(name, 0555);
  archive.directory("modules", 0700);
  archive.file("modules/order", 0600, as_bytes(order));
  for (const KernelModule& module : modules) archive.file("modules/" + module.file_name, 0600, module.bytes);
  archive.file("init", 0700, agent);
  return seal_memory("sluicebox-initrd", archive.take());
}

}  // namespace sluicebox::box
