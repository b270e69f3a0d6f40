// wire.h: the fields of a message, written and read in one order: integers little-endian, texts with their length
// ahead. Knows: bytes. Threads: a value like any other.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"

namespace sluicebox::protocol {

class Writer {
 public:
  void u8(std::uint8_t value) { bytes_.push_back(static_cast<std::byte>(value)); }
  void flag(bool value) { u8(value ? 1 : 0); }
  void u32(std::uint32_t value) { store_le32(grow(sizeof value), value); }
  void u64(std::uint64_t value) { store_le64(grow(sizeof value), value); }
  void i64(std::int64_t value) { u64(static_cast<std::uint64_t>(value)); }
  void text(std::string_view value) {
    u32(static_cast<std::uint32_t>(value.size()));
    std::byte* at = grow(value.size());
    if (!value.empty()) std::memcpy(at, value.data(), value.size());
  }
  void texts(const std::vector<std::string>& values) {
    u32(static_cast<std::uint32_t>(values.size()));
    for (const std::string& value : values) text(value);
  }
  std::vector<std::byte> take() { return std::move(bytes_); }

 private:
  std::byte* grow(std::size_t count) {
    const std::size_t at = bytes_.size();
    bytes_.resize(at + count);
    return bytes_.data() + at;
  }
  std::vector<std::byte> bytes_;
};

// Reads what a peer wrote, who may be hostile: nothing is read or allocated beyond the bytes that are there. After the
// first field that does not fit every read gives nothing, and ok() is false.
class Reader {
 public:
  explicit Reader(Bytes bytes) : left_(bytes) {}

  std::uint8_t u8() {
    const Bytes at = cut(1);
    return at.empty() ? std::uint8_t{0} : std::to_integer<std::uint8_t>(at[0]);
  }
  bool flag() {
    const std::uint8_t value = u8();
    failed_ = failed_ || value > 1;
    return value == 1;
  }
  std::uint32_t u32() {
    const Bytes at = cut(4);
    return at.empty() ? 0 : load_le32(at.data());
  }
  std::uint64_t u64() {
    const Bytes at = cut(8);
    return at.empty() ? 0 : load_le64(at.data());
  }
  std::int64_t i64() { return static_cast<std::int64_t>(u64()); }
  std::string text() {
    const Bytes at = cut(u32());
    return {reinterpret_cast<const char*>(at.data()), at.size()};  // bytes of a text, as characters
  }
  std::vector<std::string> texts() {
    const std::uint32_t count = u32();
    std::vector<std::string> values;
    for (std::uint32_t i = 0; i < count && !failed_; ++i) values.push_back(text());
    return values;
  }
  // Everything was there, and nothing is left over.
  bool ok() const { return !failed_ && left_.empty(); }

 private:
  Bytes cut(std::size_t count) {
    if (failed_ || count > left_.size()) {
      failed_ = true;
      return {};
    }
    const Bytes at = left_.first(count);
    left_ = left_.subspan(count);
    return at;
  }
  Bytes left_;
  bool failed_ = false;
};

}  // namespace sluicebox::protocol
