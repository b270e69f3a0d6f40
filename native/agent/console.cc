#include "agent/console.h"

#include <fcntl.h>
#include <unistd.h>

#include <string>

#include "base/unique_fd.h"

namespace sluicebox::agent {

void tell(std::string_view what) {
  const UniqueFd console(::open("/dev/console", O_WRONLY | O_NOCTTY | O_CLOEXEC | O_NONBLOCK));
  if (!console.valid()) return;
  const std::string line = "sluicebox: " + std::string(what) + "\n";
  // Nobody can be told of a failure here.
  if (::write(console.get(), line.data(), line.size()) < 0) return;
}

}  // namespace sluicebox::agent
