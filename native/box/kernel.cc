#include "box/kernel.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/directory.h"
#include "box/bz_image.h"
#include "box/kernel_modules.h"
#include "box/sealed_memory.h"

namespace sluicebox::box {

namespace {

constexpr std::size_t kMostImage = std::size_t{1} << 30;
constexpr std::string_view kImageBegin = "vmlinuz-";
// Without it there is no way to talk to the agent.
constexpr std::string_view kPortDriver = "virtio_console";

bool is_usable(const GuestKernel& kernel) {
  if (::access(kernel.image_path.c_str(), R_OK) != 0) return false;
  const ModuleTree modules(kernel.modules_path);
  return modules.is_builtin(kPortDriver) || modules.has(kPortDriver);
}

// The highest version's comes last.
std::vector<std::string> releases_in(const KernelPlace& place) {
  std::vector<std::string> releases;
  const UniqueDirectory directory(::opendir(place.images.c_str()));
  if (!directory) return releases;
  while (const dirent* entry = ::readdir(directory.get())) {
    const std::string_view name = entry->d_name;
    if (name.starts_with(kImageBegin) && name.ends_with(place.release_end))
      releases.emplace_back(name.substr(kImageBegin.size()));
  }
  std::sort(releases.begin(), releases.end(), [](const std::string& one, const std::string& other) {
    return ::strverscmp(one.c_str(), other.c_str()) < 0;
  });
  return releases;
}

}  // namespace

Result<GuestKernel> find_kernel(const std::string& programs_directory) {
  const std::string guest = programs_directory + "/../guest";
  const KernelPlace places[] = {
      {guest, guest + "/modules", ""}, {"/boot", "/lib/modules", "-cloud-amd64"}, {"/boot", "/lib/modules", ""}};
  return find_kernel(places);
}

Result<GuestKernel> find_kernel(std::span<const KernelPlace> places) {
  std::string looked;
  for (const KernelPlace& place : places) {
    std::vector<std::string> releases = releases_in(place);
    for (; !releases.empty(); releases.pop_back()) {
      const std::string& release = releases.back();
      GuestKernel kernel{.image_path = place.images + "/" + std::string(kImageBegin) + release,
                         .modules_path = place.modules + "/" + release,
                         .release = release};
      if (is_usable(kernel)) return kernel;
    }
    if (looked.find(place.images) == std::string::npos) looked += (looked.empty() ? "" : " and ") + place.images;
  }
  return Error(ErrorCode::kUnsupported, "no kernel for virtual machines was found in " + looked)
      .advise(
          "run the package's set-up with apt and a network, or install a kernel with its modules, such as "
          "Debian's linux-image-cloud-amd64, and let this user read it");
}

Result<UniqueFd> unpack_kernel(const GuestKernel& kernel) {
  const std::string& path = kernel.image_path;
  const auto image = TRY(read_whole(path, kMostImage, "the kernel of virtual machines"));
  auto payload = bz_payload(image);
  if (!payload.ok()) return std::move(payload).error().on(path);
  if (!is_lz4(*payload)) return seal_memory("sluicebox-kernel", image);
  const auto size = unpacked_size(*payload);
  if (!size.ok()) return Error(size.error()).on(path);
  auto unpacked = seal_memory("sluicebox-kernel", size.value(), [&](MutableBytes to) -> Status {
    TRY(unpack_lz4(*payload, to));
    // Without that entry QEMU could not start it; the packed one it always can.
    return has_pvh_entry(to) ? ok_status() : Error(ErrorCode::kUnsupported, "the kernel has no PVH entry");
  });
  if (unpacked.ok()) return unpacked;
  if (unpacked.error().code == ErrorCode::kUnsupported) return seal_memory("sluicebox-kernel", image);
  return std::move(unpacked).error().on(path);
}

Result<KernelFormat> kernel_format(int fd) {
  std::byte head[0x206];
  const ssize_t got = ::pread(fd, head, sizeof head, 0);
  if (got >= 4 && std::memcmp(head,
                              "\x7f"
                              "ELF",
                              4) == 0)
    return KernelFormat::kVmlinux;
  if (got == sizeof head && std::memcmp(head + 0x202, "HdrS", 4) == 0) return KernelFormat::kBzImage;
  return Error(ErrorCode::kUnsupported, "a file is no kernel that virtual machines can boot");
}

}  // namespace sluicebox::box
