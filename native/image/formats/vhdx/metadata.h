// metadata.h: what a VHDX's metadata region tells: sizes, sectors, and the parent's names.
// Knows: the format's layout. Does not know: files, nor where a parent lies.
// Threads: values, pure functions.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "image/formats/vhdx/layout.h"

namespace sluicebox::image::vhdx {

// Of a differencing image.
struct ParentNames {
  std::vector<std::string> linkage;  // the ids that the parent may have, as guid_text() writes them
  std::optional<std::string> relative, absolute, volume;
  // The relative name first; of those that begin in a place which only Windows knows, the file's own name.
  std::optional<std::string> path() const;
};

struct Metadata {
  std::uint32_t block_size = 0;
  bool fixed = false;  // blocks stay allocated
  bool has_parent = false;
  std::uint64_t disk_bytes = 0;
  Guid page83 = {};
  std::uint32_t logical_sector = 512, physical_sector = 512;
  std::optional<ParentNames> parent;
};

// Where an item lies in the region.
struct MetadataItem {
  std::uint32_t offset = 0, length = 0;
};
// The known items, from the region's first 64 KiB.
struct MetadataTable {
  std::optional<MetadataItem> file_parameters, disk_size, page83, logical_sector, physical_sector, parent_locator;
};
// kUnsupported for an item that must be known and is not, else kImageCorrupt. No item reaches past `region_bytes`.
Result<MetadataTable> parse_metadata_table(Bytes table, std::uint64_t region_bytes);

// Where in the region everything lies, known or not, for who puts another parent locator there.
struct MetadataPlaces {
  MetadataItem locator;
  std::size_t locator_entry = 0;     // in the table
  std::vector<MetadataItem> others;  // that are not empty
};
inline constexpr std::size_t kMetadataPlaceAt = 16;  // in an entry: {u32 offset, u32 length}
// Of a table that parse_metadata_table() took.
Result<MetadataPlaces> metadata_places(Bytes table);

// `read` gives an item's bytes.
using ReadItem = std::function<Result<std::vector<std::byte>>(const MetadataItem&)>;
Result<Metadata> parse_metadata(const MetadataTable& table, const ReadItem& read);

Result<ParentNames> parse_parent_locator(Bytes item);

// The names of a parent that has the id `link` and lies at `path`; kInvalidArgument for a path that
// ParentNames::path() would not give back.
Result<ParentNames> parent_names(const std::string& path, const Guid& link);
std::vector<std::byte> serialize_parent_locator(const ParentNames& names);

// The table's first bytes, and the items that lie 64 KiB behind them; a parent's names are the last one.
std::vector<std::byte> serialize_metadata_table(const Metadata& metadata);
std::vector<std::byte> serialize_metadata_items(const Metadata& metadata);

}  // namespace sluicebox::image::vhdx
