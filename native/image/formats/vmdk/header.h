// header.h: the first sector of a sparse VMDK file (or its footer) as a struct: parsed from bytes, serialised to bytes.
// Knows: the format's layout. Does not know: files, the descriptor's text.
// Threads: values, pure functions.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/result.h"
#include "image/formats/vmdk/layout.h"

namespace sluicebox::image::vmdk {

struct SparseHeader {
  std::uint32_t version = 1;
  std::uint32_t flags = kFlagLineEnds | kFlagRedundantDirectory;
  Geometry geometry;
  std::uint64_t descriptor_offset = 0, descriptor_sectors = 0;  // sectors; 0: the file has none of its own
  std::uint64_t redundant_directory = 0, directory = 0;         // sectors
  std::uint64_t overhead = 0;                                   // sectors before the first grain
  bool unclean = false;
  std::uint16_t compression = 0;

  bool has(std::uint32_t flag) const { return (flags & flag) != 0; }
  bool compressed() const { return compression == kDeflate; }
  bool operator==(const SparseHeader&) const = default;
};

// kImageFormat without the magic number, kUnsupported for what this engine does not read, kImageCorrupt for what no
// reader should. Strict: fields are checked against each other, not against the file.
Result<SparseHeader> parse_header(Bytes sector);
std::array<std::byte, kSectorBytes> serialize_header(const SparseHeader& header);

}  // namespace sluicebox::image::vmdk
