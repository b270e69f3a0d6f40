// kernel.h: the kernel that virtual machines boot: which one of those that are installed, and what QEMU takes of it.
// Knows: where kernels lie, the x86 boot protocol. Does not know: QEMU, the initrd.
// Threads: any.
#pragma once

#include <span>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace sluicebox::box {

struct GuestKernel {
  std::string image_path;
  std::string modules_path;  // holds kernel/ and modules.builtin
  std::string release;
};

// Where kernels may lie: `images`/vmlinuz-RELEASE with `modules`/RELEASE.
struct KernelPlace {
  std::string images;
  std::string modules;
  std::string release_end;  // only such releases; empty: all
};

// The one that set-up put beside the programs, else the host's own: a cloud kernel before any other, and of its place
// the highest version. Only what can be read and has a driver of virtio-serial ports counts. kUnsupported if there is
// none, with what to install.
Result<GuestKernel> find_kernel(const std::string& programs_directory);
// The first of the places that has one.
Result<GuestKernel> find_kernel(std::span<const KernelPlace> places);

// In sealed memory: the vmlinux inside the bzImage where it is packed with LZ4 and has an entry for PVH, which boots
// faster; else the bzImage as it is.
Result<UniqueFd> unpack_kernel(const GuestKernel& kernel);

enum class KernelFormat : std::uint8_t { kVmlinux, kBzImage };
// Of unpack_kernel()'s result, or any kernel. kUnsupported when it is neither.
Result<KernelFormat> kernel_format(int fd);

}  // namespace sluicebox::box
