// aligned_buffer.h: memory for large reads and writes, aligned to pages.
// Knows: nothing. The kernel copies between page cache and aligned memory measurably faster.
// Threads: owned by one thread at a time.
#pragma once

#include <cstdlib>
#include <memory>
#include <new>

#include "base/bytes.h"

namespace sluicebox::image {

class AlignedBuffer {
 public:
  // Running out of memory throws std::bad_alloc, as every other allocation does.
  explicit AlignedBuffer(std::size_t size)
      : size_(size), bytes_(static_cast<std::byte*>(std::aligned_alloc(kAlignment, rounded(size)))) {
    if (!bytes_) throw std::bad_alloc();
  }

  std::size_t size() const { return size_; }
  MutableBytes bytes() { return {bytes_.get(), size_}; }
  Bytes bytes() const { return {bytes_.get(), size_}; }

 private:
  static constexpr std::size_t kAlignment = 4096;
  // aligned_alloc wants whole multiples.
  static std::size_t rounded(std::size_t size) { return (size / kAlignment + 1) * kAlignment; }
  struct Free {
    void operator()(std::byte* bytes) const { std::free(bytes); }
  };
  std::size_t size_;
  std::unique_ptr<std::byte, Free> bytes_;
};

}  // namespace sluicebox::image
