#include "box/console.h"

#include <unistd.h>

#include <array>
#include <cerrno>

namespace sluicebox::box {

namespace {

constexpr int kReadsAtOnce = 16;

}  // namespace

bool Console::read() {
  std::array<char, 8192> bytes{};
  for (int i = 0; i < kReadsAtOnce; ++i) {
    const ssize_t got = ::read(source_.get(), bytes.data(), bytes.size());
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return true;
    if (got <= 0) return false;
    tail_.append(bytes.data(), static_cast<std::size_t>(got));
    if (tail_.size() > kKept) tail_.erase(0, tail_.size() - kKept);
  }
  return true;
}

}  // namespace sluicebox::box
