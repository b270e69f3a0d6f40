#include "box/sealed_program.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

#include <cerrno>

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U  // Linux 6.3
#endif

namespace sluicebox::box {

Result<UniqueFd> seal_program(const std::string& path) {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return os_error(errno, "cannot open a program of Sluicebox", path);
  struct stat status{};
  if (::fstat(file.get(), &status) != 0) return os_error(errno, "cannot examine a program of Sluicebox", path);
  constexpr unsigned kFlags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  UniqueFd sealed(::memfd_create("sluicebox-agent", kFlags | MFD_EXEC));
  if (!sealed.valid() && errno == EINVAL) sealed = UniqueFd(::memfd_create("sluicebox-agent", kFlags));
  if (!sealed.valid()) return os_error(errno, "cannot make memory for a program");
  for (off_t done = 0; done < status.st_size;) {
    const ssize_t put = ::sendfile(sealed.get(), file.get(), nullptr, static_cast<std::size_t>(status.st_size - done));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return os_error(put < 0 ? errno : EIO, "cannot copy a program of Sluicebox", path);
    done += put;
  }
  constexpr int kSeals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
  if (::fcntl(sealed.get(), F_ADD_SEALS, kSeals) != 0) return os_error(errno, "cannot seal a program", path);
  return sealed;
}

}  // namespace sluicebox::box
