#include "agent/kernel_modules.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "agent/console.h"
#include "agent/small_file.h"
#include "base/unique_fd.h"

namespace sluicebox::agent {

namespace {

// 0 or errno. The C library has no function for it.
int load(const std::string& path) {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return errno;
  return ::syscall(SYS_finit_module, file.get(), "", 0) == 0 || errno == EEXIST ? 0 : errno;
}

}  // namespace

void load_modules() {
  const auto order = read_small("/modules/order");
  if (!order) return tell("the initrd has no /modules/order");
  for (std::size_t begin = 0; begin < order->size();) {
    const std::size_t end = std::min(order->find('\n', begin), order->size());
    const std::string name = order->substr(begin, end - begin);
    begin = end + 1;
    if (name.empty()) continue;
    if (const int failed = load("/modules/" + name); failed != 0)
      tell("cannot load the module " + name + ": " + std::strerror(failed));
  }
}

}  // namespace sluicebox::agent
