#include "box/machine_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace sluicebox::box {

namespace {

constexpr std::uint64_t kPage = 4096;

bool is_zero(const std::byte* page) { return page[0] == std::byte{0} && std::memcmp(page, page + 1, kPage - 1) == 0; }

// A machine's memory is mostly untouched; QEMU has looked at all of it.
void dig_holes(const UniqueFd& memory, const std::byte* bytes, std::uint64_t size) {
  for (std::uint64_t at = 0; at < size;) {
    std::uint64_t end = at;
    while (end < size && is_zero(bytes + end)) end += kPage;
    if (end > at) {
      ::fallocate(memory.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(at),
                  static_cast<off_t>(end - at));
    }
    at = end + kPage;
  }
}

}  // namespace

Result<UniqueFd> blank_memory(std::uint64_t size) {
  UniqueFd memory(::memfd_create("sluicebox-memory", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!memory.valid()) return os_error(errno, "cannot make a machine's memory");
  if (size == 0) return memory;
  if (::ftruncate(memory.get(), static_cast<off_t>(size)) != 0 ||
      ::fallocate(memory.get(), 0, 0, static_cast<off_t>(size)) != 0)
    return os_error(errno, "cannot make a machine's memory");
  return memory;
}

Status seal(const UniqueFd& memory, std::uint64_t size) {
  if (size > 0) {
    void* mapped = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, memory.get(), 0);
    if (mapped == MAP_FAILED) return os_error(errno, "cannot look at a machine's memory");
    dig_holes(memory, static_cast<const std::byte*>(mapped), size);
    ::munmap(mapped, size);
  }
  if (::fcntl(memory.get(), F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) != 0)
    return os_error(errno, "cannot seal a machine's memory");
  return ok_status();
}

Result<UniqueFd> from_the_beginning(const UniqueFd& file) {
  UniqueFd fresh(::open(("/proc/self/fd/" + std::to_string(file.get())).c_str(), O_RDONLY | O_CLOEXEC));
  if (!fresh.valid()) return os_error(errno, "cannot open a machine's memory");
  return fresh;
}

}  // namespace sluicebox::box
