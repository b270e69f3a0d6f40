// cpio.h: an archive as the kernel unpacks it into its first file system (the "newc" form).
// Knows: the archive's layout. Does not know: what is in it.
// Threads: one at a time.
// Format: Documentation/driver-api/early-userspace/buffer-format.rst.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/bytes.h"

namespace sluicebox::box {

// Owned by root, of no time. A directory comes before what is in it; names are without the first slash.
class Cpio {
 public:
  void directory(std::string_view name, std::uint32_t mode);
  void file(std::string_view name, std::uint32_t mode, Bytes bytes);
  void character_device(std::string_view name, std::uint32_t mode, std::uint32_t major, std::uint32_t minor);
  // With the archive's end; nothing can be added any more.
  std::vector<std::byte> take();

 private:
  struct Entry {
    std::string_view name;
    std::uint32_t mode = 0;
    std::uint32_t links = 1;
    std::uint32_t device_major = 0;
    std::uint32_t device_minor = 0;
    Bytes bytes;
  };
  void add(const Entry& entry);
  void append(Bytes bytes);
  void pad();

  std::vector<std::byte> archive_;
  std::uint32_t next_inode_ = 1;
};

}  // namespace sluicebox::box
