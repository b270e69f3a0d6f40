#include "box/sealed_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U  // Linux 6.3
#endif

namespace sluicebox::box {

Result<UniqueFd> seal_memory(const char* name, std::size_t size, const std::function<Status(MutableBytes)>& fill) {
  constexpr unsigned kFlags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  UniqueFd sealed(::memfd_create(name, kFlags | MFD_NOEXEC_SEAL));
  if (!sealed.valid() && errno == EINVAL) sealed = UniqueFd(::memfd_create(name, kFlags));
  if (!sealed.valid() || ::ftruncate(sealed.get(), static_cast<off_t>(size)) != 0)
    return os_error(errno, "cannot make memory for a virtual machine's file");
  if (size > 0) {
    void* const mapped = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, sealed.get(), 0);
    if (mapped == MAP_FAILED) return os_error(errno, "cannot map memory for a virtual machine's file");
    const Status filled = fill(MutableBytes(static_cast<std::byte*>(mapped), size));
    ::munmap(mapped, size);
    TRY(filled);
  }
  // Refused as long as anybody has the memory mapped writable.
  constexpr int kSeals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
  if (::fcntl(sealed.get(), F_ADD_SEALS, kSeals) != 0) return os_error(errno, "cannot seal a virtual machine's file");
  return sealed;
}

Result<UniqueFd> seal_memory(const char* name, Bytes bytes) {
  return seal_memory(name, bytes.size(), [bytes](MutableBytes to) -> Status {
    std::memcpy(to.data(), bytes.data(), bytes.size());
    return ok_status();
  });
}

Result<std::vector<std::byte>> read_whole(int fd, std::size_t most, const std::string& what, const std::string& path) {
  struct stat status{};
  if (::fstat(fd, &status) != 0) return os_error(errno, "cannot examine " + what, path);
  const auto size = static_cast<std::size_t>(status.st_size);
  if (!S_ISREG(status.st_mode) || size > most)
    return Error(ErrorCode::kIo, what + " is no plain file of its size").on(path);
  std::vector<std::byte> bytes(size);
  for (std::size_t done = 0; done < size;) {
    const ssize_t got = ::pread(fd, bytes.data() + done, size - done, static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return os_error(errno, "cannot read " + what, path);
    if (got == 0) return Error(ErrorCode::kIo, what + " was cut short while it was read").on(path);
    done += static_cast<std::size_t>(got);
  }
  return bytes;
}

Result<std::vector<std::byte>> read_whole(const std::string& path, std::size_t most, const std::string& what) {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  if (!file.valid()) return os_error(errno, "cannot open " + what, path);
  return read_whole(file.get(), most, what, path);
}

}  // namespace sluicebox::box
