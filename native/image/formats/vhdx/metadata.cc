#include "image/formats/vhdx/metadata.h"

#include <algorithm>
#include <cctype>

#include "base/checked.h"
#include "image/printable.h"
#include "image/utf16.h"

namespace sluicebox::image::vhdx {

namespace {

constexpr char kMetadataSignature[] = "metadata";
constexpr std::size_t kMetadataCountAt = 10, kMetadataEntriesAt = 32, kMetadataEntryBytes = 32;
constexpr std::uint32_t kIsVirtualDisk = 2, kIsRequired = 4;
constexpr std::uint32_t kLeaveAllocated = 1, kHasParent = 2;
constexpr std::size_t kLocatorCountAt = 18, kLocatorHead = 20, kLocatorEntry = 12;

// A new image's items, in the order of their bytes.
struct KnownItem {
  const Guid& id;
  std::uint32_t length;
  std::uint32_t flags;
};
constexpr KnownItem kNewItems[] = {{kFileParameters, 8, kIsRequired},
                                   {kDiskSize, 8, kIsRequired | kIsVirtualDisk},
                                   {kPage83, 16, kIsRequired | kIsVirtualDisk},
                                   {kLogicalSector, 4, kIsRequired | kIsVirtualDisk},
                                   {kPhysicalSector, 4, kIsRequired | kIsVirtualDisk}};

Error bad_metadata(std::string text) { return Error(ErrorCode::kImageCorrupt, "vhdx metadata: " + std::move(text)); }

std::optional<MetadataItem>* slot_of(MetadataTable& table, const Guid& id) {
  if (id == kFileParameters) return &table.file_parameters;
  if (id == kDiskSize) return &table.disk_size;
  if (id == kPage83) return &table.page83;
  if (id == kLogicalSector) return &table.logical_sector;
  if (id == kPhysicalSector) return &table.physical_sector;
  if (id == kParentLocator) return &table.parent_locator;
  return nullptr;
}

Result<std::vector<std::byte>> read_item(const std::optional<MetadataItem>& item, std::size_t bytes, const char* what,
                                         const ReadItem& read) {
  if (!item) return bad_metadata(std::string("the ") + what + " is missing");
  if (item->length < bytes) return bad_metadata(std::string("the ") + what + " is cut short");
  return read(*item);
}

bool is_sector_size(std::uint32_t bytes) { return bytes == 512 || bytes == 4096; }

// "{…}" in any case, as guid_text() writes it.
std::string plain_guid(std::string text) {
  std::erase_if(text, [](char character) { return character == '{' || character == '}'; });
  std::ranges::transform(text, text.begin(), [](unsigned char character) { return std::tolower(character); });
  return text;
}

}  // namespace

std::optional<std::string> ParentNames::path() const {
  for (const auto* name : {&relative, &absolute, &volume}) {
    if (!*name) continue;
    std::string path = path_of_windows(**name);
    if (!path.empty()) return path;
  }
  return std::nullopt;
}

Result<MetadataTable> parse_metadata_table(Bytes bytes, std::uint64_t region_bytes) {
  if (bytes.size() < kMetadataTableBytes || std::memcmp(bytes.data(), kMetadataSignature, 8) != 0) {
    return bad_metadata("there is no table");
  }
  const std::uint32_t count = load_le16(bytes.data() + kMetadataCountAt);
  if (count > kMaxMetadataEntries) return bad_metadata("a table of " + std::to_string(count) + " items");
  MetadataTable table;
  for (std::size_t i = 0; i < count; ++i) {
    const std::byte* entry = bytes.data() + kMetadataEntriesAt + i * kMetadataEntryBytes;
    const Guid id = load_guid(entry);
    const MetadataItem item{.offset = load_le32(entry + 16), .length = load_le32(entry + 20)};
    std::optional<MetadataItem>* slot = slot_of(table, id);
    if (slot == nullptr) {
      if ((load_le32(entry + 24) & kIsRequired) == 0) continue;
      return Error(ErrorCode::kUnsupported,
                   "the vhdx has the metadata " + guid_text(id, true) + ", which must be known to read it");
    }
    if (*slot) return bad_metadata("an item is named twice");
    const std::uint64_t end = std::uint64_t{item.offset} + item.length;
    if (item.offset < kMetadataTableBytes || item.length > kMaxMetadataItemBytes || end > region_bytes) {
      return bad_metadata("an item cannot lie at " + std::to_string(item.offset));
    }
    *slot = item;
  }
  return table;
}

Result<MetadataPlaces> metadata_places(Bytes bytes) {
  if (bytes.size() < kMetadataTableBytes) return bad_metadata("there is no table");
  const std::uint32_t count = load_le16(bytes.data() + kMetadataCountAt);
  if (count > kMaxMetadataEntries) return bad_metadata("a table of " + std::to_string(count) + " items");
  MetadataPlaces places;
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t at = kMetadataEntriesAt + i * kMetadataEntryBytes;
    const std::byte* entry = bytes.data() + at;
    const MetadataItem item{.offset = load_le32(entry + kMetadataPlaceAt),
                            .length = load_le32(entry + kMetadataPlaceAt + 4)};
    if (load_guid(entry) == kParentLocator) {
      places.locator = item;
      places.locator_entry = at;
    } else if (item.length != 0) {
      places.others.push_back(item);
    }
  }
  if (places.locator_entry == 0) return bad_metadata("the parent locator is missing");
  return places;
}

Result<Metadata> parse_metadata(const MetadataTable& table, const ReadItem& read) {
  Metadata metadata;
  const auto parameters = TRY(read_item(table.file_parameters, 8, "file parameters", read));
  metadata.block_size = load_le32(parameters.data());
  const std::uint32_t flags = load_le32(parameters.data() + 4);
  metadata.fixed = (flags & kLeaveAllocated) != 0;
  metadata.has_parent = (flags & kHasParent) != 0;
  if (!is_power_of_two(metadata.block_size) || metadata.block_size < kMinBlockBytes ||
      metadata.block_size > kMaxBlockBytes) {
    return bad_metadata("a block size of " + std::to_string(metadata.block_size) + " bytes");
  }
  const auto logical = TRY(read_item(table.logical_sector, 4, "logical sector size", read));
  const auto physical = TRY(read_item(table.physical_sector, 4, "physical sector size", read));
  metadata.logical_sector = load_le32(logical.data());
  metadata.physical_sector = load_le32(physical.data());
  if (!is_sector_size(metadata.logical_sector) || !is_sector_size(metadata.physical_sector)) {
    return bad_metadata("sectors of " + std::to_string(metadata.logical_sector) + " and " +
                        std::to_string(metadata.physical_sector) + " bytes");
  }
  const auto size = TRY(read_item(table.disk_size, 8, "disk's size", read));
  metadata.disk_bytes = load_le64(size.data());
  if (metadata.disk_bytes > kMaxDiskBytes || metadata.disk_bytes % metadata.logical_sector != 0) {
    return bad_metadata("a disk of " + std::to_string(metadata.disk_bytes) + " bytes");
  }
  const auto page83 = TRY(read_item(table.page83, 16, "disk's id", read));
  metadata.page83 = load_guid(page83.data());
  if (!metadata.has_parent) return metadata;
  const auto locator = TRY(read_item(table.parent_locator, 20, "parent locator", read));
  metadata.parent = TRY(parse_parent_locator(locator));
  return metadata;
}

// 2.6.2.6: {type, u16 0, u16 count}, then {u32 key, u32 value, u16 key length, u16 value length}, all UTF-16LE.
Result<ParentNames> parse_parent_locator(Bytes item) {
  if (item.size() < kLocatorHead) return bad_metadata("the parent locator is cut short");
  if (load_guid(item.data()) != kVhdxLocatorType) {
    return Error(ErrorCode::kUnsupported, "the vhdx names its parent in a way that is not known");
  }
  const std::size_t count = load_le16(item.data() + kLocatorCountAt);
  if (kLocatorHead + count * kLocatorEntry > item.size()) return bad_metadata("the parent locator is cut short");
  const auto text = [&](std::uint64_t offset, std::uint64_t length) -> std::optional<std::string> {
    if (offset > item.size() || length > item.size() - offset) return std::nullopt;
    return utf8_of_utf16(item.subspan(offset, length), /*big_endian=*/false);
  };
  ParentNames names;
  for (std::size_t i = 0; i < count; ++i) {
    const std::byte* entry = item.data() + kLocatorHead + i * kLocatorEntry;
    const auto key = text(load_le32(entry), load_le16(entry + 8));
    const auto value = text(load_le32(entry + 4), load_le16(entry + 10));
    if (!key || !value) return bad_metadata("the parent locator has an entry that is no text");
    if (*key == "parent_linkage" || *key == "parent_linkage2") names.linkage.push_back(plain_guid(*value));
    if (*key == "relative_path") names.relative = *value;
    if (*key == "absolute_win32_path") names.absolute = *value;
    if (*key == "volume_path") names.volume = *value;
  }
  return names;
}

Result<ParentNames> parent_names(const std::string& path, const Guid& link) {
  const auto refuse = [](std::string text) {
    return Error(ErrorCode::kInvalidArgument, "backing: " + std::move(text));
  };
  if (path.empty()) return refuse("the path is empty");
  if (path.size() > kMaxParentPath) {
    return refuse("the path has " + std::to_string(path.size()) + " bytes, at most " + std::to_string(kMaxParentPath) +
                  " are stored");
  }
  ParentNames names;
  names.linkage = {guid_text(link, /*little_endian=*/true)};
  names.relative = windows_of_path(path);
  if (names.relative && utf16_of_utf8(*names.relative, /*big_endian=*/false)) return names;
  return refuse("a vhdx cannot record the name " + printable(path));
}

std::vector<std::byte> serialize_parent_locator(const ParentNames& names) {
  std::vector<std::pair<std::string, std::string>> pairs;
  pairs.reserve(names.linkage.size() + 3);
  for (const std::string& link : names.linkage) {
    pairs.emplace_back(pairs.empty() ? "parent_linkage" : "parent_linkage2", "{" + link + "}");
  }
  if (names.relative) pairs.emplace_back("relative_path", *names.relative);
  if (names.volume) pairs.emplace_back("volume_path", *names.volume);
  if (names.absolute) pairs.emplace_back("absolute_win32_path", *names.absolute);
  std::vector<std::byte> item(kLocatorHead + pairs.size() * kLocatorEntry);
  store_guid(item.data(), kVhdxLocatorType);
  store_le16(item.data() + kLocatorCountAt, static_cast<std::uint16_t>(pairs.size()));
  const auto append = [&](const std::string& text, std::size_t offset_at, std::size_t length_at) {
    // What is written here was read as text, or was judged to be some.
    const auto bytes = utf16_of_utf8(text, /*big_endian=*/false).value_or(std::vector<std::byte>());
    store_le32(item.data() + offset_at, static_cast<std::uint32_t>(item.size()));
    store_le16(item.data() + length_at, static_cast<std::uint16_t>(bytes.size()));
    item.insert(item.end(), bytes.begin(), bytes.end());
  };
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const std::size_t entry = kLocatorHead + i * kLocatorEntry;
    append(pairs[i].first, entry, entry + 8);
    append(pairs[i].second, entry + 4, entry + 10);
  }
  return item;
}

std::vector<std::byte> serialize_metadata_table(const Metadata& metadata) {
  const std::size_t count = std::size(kNewItems) + (metadata.parent ? 1 : 0);
  std::vector<std::byte> table(kMetadataEntriesAt + count * kMetadataEntryBytes);
  std::memcpy(table.data(), kMetadataSignature, 8);
  store_le16(table.data() + kMetadataCountAt, static_cast<std::uint16_t>(count));
  std::byte* entry = table.data() + kMetadataEntriesAt;
  std::uint32_t offset = kMetadataTableBytes;
  const auto add = [&](const Guid& id, std::uint32_t length, std::uint32_t flags) {
    store_guid(entry, id);
    store_le32(entry + 16, offset);
    store_le32(entry + 20, length);
    store_le32(entry + 24, flags);
    offset += length;
    entry += kMetadataEntryBytes;
  };
  for (const KnownItem& item : kNewItems) add(item.id, item.length, item.flags);
  if (metadata.parent) {
    add(kParentLocator, static_cast<std::uint32_t>(serialize_parent_locator(*metadata.parent).size()), kIsRequired);
  }
  return table;
}

std::vector<std::byte> serialize_metadata_items(const Metadata& metadata) {
  std::vector<std::byte> items(8 + 8 + 16 + 4 + 4);
  store_le32(items.data(), metadata.block_size);
  store_le32(items.data() + 4, (metadata.fixed ? kLeaveAllocated : 0) | (metadata.parent ? kHasParent : 0));
  store_le64(items.data() + 8, metadata.disk_bytes);
  store_guid(items.data() + 16, metadata.page83);
  store_le32(items.data() + 32, metadata.logical_sector);
  store_le32(items.data() + 36, metadata.physical_sector);
  if (metadata.parent) {
    const std::vector<std::byte> locator = serialize_parent_locator(*metadata.parent);
    items.insert(items.end(), locator.begin(), locator.end());
  }
  return items;
}

}  // namespace sluicebox::image::vhdx
