// header.h: the first cluster of a qcow2 file as a struct: parsed from bytes, serialised to bytes.
// Knows: the format's layout. Does not know: files. Fields and extensions that it does not understand survive.
// Threads: values, pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "image/block.h"
#include "image/formats/qcow2/layout.h"

namespace sluicebox::image::qcow2 {

struct HeaderExtension {
  std::uint32_t type = 0;
  std::vector<std::byte> data;
};

struct BitmapDirectory {
  std::uint32_t count = 0;
  std::uint64_t bytes = 0, offset = 0;
};

struct Header {
  unsigned version = 3;
  std::uint64_t size = 0;
  std::uint32_t crypt_method = 0;
  std::uint32_t l1_size = 0;
  std::uint64_t l1_offset = 0;
  std::uint64_t refcount_table_offset = 0;
  std::uint32_t refcount_table_clusters = 0;
  std::uint32_t snapshot_count = 0;
  std::uint64_t snapshots_offset = 0;
  std::uint64_t incompatible = 0, compatible = 0, autoclear = 0;
  std::uint8_t compression_type = 0;
  Geometry geometry;
  std::uint32_t header_length = kHeaderBytesV3;
  std::vector<std::byte> unknown_fields;  // what a later version keeps behind compression_type, up to header_length

  std::uint64_t backing_offset = 0;
  std::optional<BackingReference> backing;
  std::vector<HeaderExtension> extensions;  // in file order, without the backing format and the end marker
  std::uint64_t extensions_end = 0;         // first byte behind the end marker (or the last extension)

  bool has(Incompatible feature) const { return (incompatible & static_cast<std::uint64_t>(feature)) != 0; }
  const HeaderExtension* find(std::uint32_t type) const;
  Result<std::optional<BitmapDirectory>> bitmaps() const;
};

// The header's geometry alone, from its first 104 bytes or more: how much must be read for the rest.
Result<std::uint64_t> cluster_size_of(Bytes head);

// `cluster0` is the file from its start, up to one cluster (less when the file is shorter). All limits of layout.h are
// checked: kImageFormat when it is no qcow2, kUnsupported for another version, else kImageCorrupt.
Result<Header> parse_header(Bytes cluster0);

// Header, backing format, extensions and end marker: the bytes before the backing path.
std::vector<std::byte> serialize_header(const Header& header);

}  // namespace sluicebox::image::qcow2
