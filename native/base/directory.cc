#include "base/directory.h"

#include <sys/stat.h>

#include <cerrno>

namespace sluicebox {

Status make_parents(const std::string& path) {
  for (std::size_t slash = path.find('/', 1); slash != std::string::npos; slash = path.find('/', slash + 1)) {
    if (::mkdir(path.substr(0, slash).c_str(), 0755) != 0 && errno != EEXIST)
      return os_error(errno, "cannot make the directory", path.substr(0, slash));
  }
  return ok_status();
}

}  // namespace sluicebox
