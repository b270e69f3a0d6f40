// unique_fd.h: the one owner of a file descriptor.
// Knows: close(2). Does not know: what the descriptor is.
// Threads: owned by one thread at a time.
#pragma once

#include <unistd.h>

#include <utility>

namespace sluicebox {

class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  ~UniqueFd() { reset(); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }
  void reset() {
    if (fd_ >= 0) ::close(fd_);  // On Linux the descriptor is gone even when close reports an error.
    fd_ = -1;
  }

 private:
  int fd_ = -1;
};

}  // namespace sluicebox
