#include "image/formats/vhdx/region_table.h"

#include <algorithm>
#include <optional>
#include <string>

#include "base/checked.h"
#include "image/formats/vhdx/crc32c.h"

namespace sluicebox::image::vhdx {

namespace {

constexpr char kRegionSignature[] = "regi";
constexpr std::size_t kRegionChecksumAt = 4, kRegionCountAt = 8, kRegionEntriesAt = 16, kRegionEntryBytes = 32;

Error bad_regions(std::string text, std::size_t at) {
  return Error(ErrorCode::kImageCorrupt, "vhdx region table: " + std::move(text)).at(at);
}

Result<Region> parse_region(const std::byte* entry, std::size_t at) {
  const Region region{.offset = load_le64(entry + 16), .length = load_le32(entry + 24)};
  const auto end = checked_add(region.offset, region.length);
  if (!end || *end > kMaxFileBytes || region.offset < kHeaderSectionBytes || region.offset % kMiB != 0 ||
      region.length == 0 || region.length % kMiB != 0) {
    return bad_regions("a region cannot lie at " + std::to_string(region.offset), at);
  }
  return region;
}

}  // namespace

Result<RegionTable> parse_region_table(Bytes bytes) {
  if (bytes.size() < kRegionTableBytes || std::memcmp(bytes.data(), kRegionSignature, 4) != 0) {
    return bad_regions("there is none", 0);
  }
  bytes = bytes.first(kRegionTableBytes);
  if (load_le32(bytes.data() + kRegionChecksumAt) != crc32c_padded(bytes, kRegionChecksumAt, kRegionTableBytes)) {
    return bad_regions("its checksum is wrong", kRegionChecksumAt);
  }
  const std::uint32_t count = load_le32(bytes.data() + kRegionCountAt);
  if (count > kMaxRegions) return bad_regions(std::to_string(count) + " regions", kRegionCountAt);
  std::optional<Region> table;
  std::optional<Region> metadata;
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t at = kRegionEntriesAt + i * kRegionEntryBytes;
    const std::byte* entry = bytes.data() + at;
    const Guid id = load_guid(entry);
    std::optional<Region>* known = id == kTableRegion ? &table : id == kMetadataRegion ? &metadata : nullptr;
    if (known == nullptr) {
      if ((load_le32(entry + 28) & 1) == 0) continue;
      return Error(ErrorCode::kUnsupported,
                   "the vhdx has the region " + guid_text(id, true) + ", which must be known to read it");
    }
    if (*known) return bad_regions("a region is named twice", at);
    *known = TRY(parse_region(entry, at));
  }
  if (!table || !metadata) return bad_regions("the metadata or the table of blocks is missing", kRegionCountAt);
  if (table->offset < metadata->end() && metadata->offset < table->end()) {
    return bad_regions("the regions lie over one another", kRegionEntriesAt);
  }
  return RegionTable{.table = *table, .metadata = *metadata};
}

void place_table(MutableBytes bytes, const Region& place) {
  const std::uint32_t count = std::min(load_le32(bytes.data() + kRegionCountAt), kMaxRegions);
  for (std::size_t i = 0; i < count; ++i) {
    std::byte* entry = bytes.data() + kRegionEntriesAt + i * kRegionEntryBytes;
    if (load_guid(entry) != kTableRegion) continue;
    store_le64(entry + 16, place.offset);
    store_le32(entry + 24, place.length);
  }
  store_le32(bytes.data() + kRegionChecksumAt, crc32c_padded(bytes, kRegionChecksumAt, kRegionTableBytes));
}

std::array<std::byte, kRegionTableUsedBytes> serialize_region_table(const RegionTable& regions) {
  std::array<std::byte, kRegionTableUsedBytes> bytes = {};
  std::memcpy(bytes.data(), kRegionSignature, 4);
  store_le32(bytes.data() + kRegionCountAt, 2);
  std::byte* entry = bytes.data() + kRegionEntriesAt;
  const auto put = [&entry](const Guid& id, const Region& region) {
    store_guid(entry, id);
    store_le64(entry + 16, region.offset);
    store_le32(entry + 24, region.length);
    store_le32(entry + 28, 1);
    entry += kRegionEntryBytes;
  };
  put(kTableRegion, regions.table);
  put(kMetadataRegion, regions.metadata);
  store_le32(bytes.data() + kRegionChecksumAt, crc32c_padded(bytes, kRegionChecksumAt, kRegionTableBytes));
  return bytes;
}

}  // namespace sluicebox::image::vhdx
