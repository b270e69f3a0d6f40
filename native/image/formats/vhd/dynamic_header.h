// dynamic_header.h: what dynamic and differencing VHDs have beside their footer: the table of blocks, and the parent.
// Knows: the format's layout. Does not know: files, nor where a parent lies.
// Threads: values, pure functions.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/result.h"
#include "image/formats/vhd/layout.h"
#include "image/guid.h"

namespace sluicebox::image::vhd {

// Where one platform's name of the parent is stored.
struct ParentLocator {
  std::uint32_t code = 0;  // 0: none
  std::uint32_t space = 0, length = 0;
  std::uint64_t offset = 0;
};

struct DynamicHeader {
  std::uint64_t table_offset = 0;
  std::uint32_t max_entries = 0;
  std::uint32_t block_size = kDefaultBlockBytes;
  Guid parent_id = {};
  std::uint32_t parent_time = 0;
  std::string parent_name;  // UTF-8; empty where none is stored, or none that is text
  std::array<ParentLocator, kLocatorCount> locators = {};

  // Of the sector bitmap in front of each block's data: whole sectors.
  std::uint64_t bitmap_bytes() const;
  std::uint64_t stride() const { return bitmap_bytes() + block_size; }
  std::uint64_t table_bytes() const { return std::uint64_t{max_entries} * 4; }
};

// kImageCorrupt for what is no header, or one that cannot be.
Result<DynamicHeader> parse_dynamic_header(Bytes bytes);
// Into 1024 bytes, with a checksum.
void serialize_dynamic_header(const DynamicHeader& header, MutableBytes out);

}  // namespace sluicebox::image::vhd
