#include "box/cpio.h"

#include <sys/stat.h>

#include <cstdio>
#include <utility>

namespace sluicebox::box {

void Cpio::directory(std::string_view name, std::uint32_t mode) {
  add({.name = name, .mode = S_IFDIR | mode, .links = 2, .bytes = {}});
}

void Cpio::file(std::string_view name, std::uint32_t mode, Bytes bytes) {
  add({.name = name, .mode = S_IFREG | mode, .bytes = bytes});
}

void Cpio::character_device(std::string_view name, std::uint32_t mode, std::uint32_t major, std::uint32_t minor) {
  add({.name = name, .mode = S_IFCHR | mode, .device_major = major, .device_minor = minor, .bytes = {}});
}

std::vector<std::byte> Cpio::take() {
  next_inode_ = 0;
  add({.name = "TRAILER!!!", .bytes = {}});
  return std::move(archive_);
}

// Thirteen fields of eight hex digits, the name with its zero byte, the bytes; both padded to 4.
void Cpio::add(const Entry& entry) {
  const std::uint32_t fields[] = {
      next_inode_++,
      entry.mode,
      0,  // user
      0,  // group
      entry.links,
      0,  // time
      static_cast<std::uint32_t>(entry.bytes.size()),
      0,  // the device that it lies on
      0,
      entry.device_major,
      entry.device_minor,
      static_cast<std::uint32_t>(entry.name.size() + 1),
      0,  // no checksum
  };
  append(as_bytes("070701"));
  for (const std::uint32_t field : fields) {
    char digits[9];
    std::snprintf(digits, sizeof digits, "%08X", field);
    append(as_bytes({digits, 8}));
  }
  append(as_bytes(entry.name));
  archive_.push_back(std::byte{0});
  pad();
  append(entry.bytes);
  pad();
}

void Cpio::append(Bytes bytes) { archive_.insert(archive_.end(), bytes.begin(), bytes.end()); }

void Cpio::pad() { archive_.resize((archive_.size() + 3) / 4 * 4); }

}  // namespace sluicebox::box
