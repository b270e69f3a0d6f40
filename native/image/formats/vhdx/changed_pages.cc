#include "image/formats/vhdx/changed_pages.h"

#include <algorithm>
#include <map>

#include "base/checked.h"

namespace sluicebox::image::vhdx {

namespace {

// What is written over the file, page by page.
class PatchedPages {
 public:
  explicit PatchedPages(const File& file) : file_(file) {}

  Status put(std::uint64_t offset, Bytes bytes) {
    while (!bytes.empty()) {
      const std::uint64_t page = align_down(offset, kLogSectorBytes);
      if (!pages_.contains(page)) {
        std::vector<std::byte> content(kLogSectorBytes);
        TRY(read_exact(file_, page, content, "the vhdx metadata"));
        pages_[page] = std::move(content);
      }
      const std::size_t part = std::min<std::size_t>(bytes.size(), page + kLogSectorBytes - offset);
      std::memcpy(pages_[page].data() + (offset - page), bytes.data(), part);
      offset += part;
      bytes = bytes.subspan(part);
    }
    return {};
  }

  std::vector<LogPage> take() {
    std::vector<LogPage> pages;
    pages.reserve(pages_.size());
    for (auto& [offset, bytes] : pages_) pages.push_back({.offset = offset, .bytes = std::move(bytes)});
    return pages;
  }

 private:
  const File& file_;
  std::map<std::uint64_t, std::vector<std::byte>> pages_;
};

// Where it was, if nothing else lies there; else behind everything.
std::optional<std::uint32_t> place_for(const MetadataPlaces& places, std::size_t length, std::uint64_t region_bytes) {
  const auto meets_other = [&](std::uint64_t begin, std::uint64_t end) {
    return std::ranges::any_of(places.others, [&](const MetadataItem& each) {
      return each.offset < end && begin < std::uint64_t{each.offset} + each.length;
    });
  };
  std::uint64_t behind = kMetadataTableBytes;
  for (const MetadataItem& each : places.others) {
    behind = std::max(behind, std::uint64_t{each.offset} + each.length);
  }
  behind = checked_align_up(behind, 8).value_or(behind);
  for (const std::uint64_t begin : {std::uint64_t{places.locator.offset}, behind}) {
    if (begin + length <= region_bytes && !meets_other(begin, begin + length)) {
      return static_cast<std::uint32_t>(begin);
    }
  }
  return std::nullopt;
}

}  // namespace

Result<std::vector<LogPage>> parent_pages(const ImageState& image, const ParentNames& names) {
  const Region& region = image.regions.metadata;
  std::vector<std::byte> table(kMetadataTableBytes);
  TRY(read_exact(image.file, region.offset, table, "the vhdx metadata"));
  const MetadataPlaces places = TRY(metadata_places(table));
  const std::vector<std::byte> item = serialize_parent_locator(names);
  const auto at = place_for(places, item.size(), region.length);
  if (!at || item.size() > kMaxMetadataItemBytes) {
    return Error(ErrorCode::kInvalidArgument, "backing: its name leaves no room in the image's metadata")
        .on(image.file.path());
  }
  PatchedPages pages(image.file);
  std::vector<std::byte> place(8);
  store_le32(place.data(), *at);
  store_le32(place.data() + 4, static_cast<std::uint32_t>(item.size()));
  TRY(pages.put(region.offset + places.locator_entry + kMetadataPlaceAt, place));
  TRY(pages.put(region.offset + *at, item));
  std::vector<LogPage> changed = pages.take();
  if (changed.size() > most_pages(image.header.log_length)) {
    return Error(ErrorCode::kInvalidArgument, "backing: its name is longer than the image's log").on(image.file.path());
  }
  return changed;
}

Result<std::vector<LogPage>> size_pages(const ImageState& image, std::uint64_t disk_bytes) {
  const Region& region = image.regions.metadata;
  std::vector<std::byte> bytes(kMetadataTableBytes);
  TRY(read_exact(image.file, region.offset, bytes, "the vhdx metadata"));
  const MetadataTable table = TRY(parse_metadata_table(bytes, region.length));
  std::vector<std::byte> size(8);
  store_le64(size.data(), disk_bytes);
  PatchedPages pages(image.file);
  TRY(pages.put(region.offset + table.disk_size->offset, size));
  return pages.take();
}

// Regions that need not be known are told by the table that is read: both copies become that one.
Result<std::vector<LogPage>> table_pages(const ImageState& image, const Region& place) {
  std::vector<std::byte> wanted(kRegionTableBytes);
  const std::size_t read = image.region_table_sound[0] ? 0 : 1;
  TRY(read_exact(image.file, kRegionTableOffsets[read], wanted, "the vhdx region table"));
  place_table(wanted, place);
  std::vector<LogPage> pages;
  for (const std::uint64_t copy : kRegionTableOffsets) {
    std::vector<std::byte> present(kRegionTableBytes);
    TRY(read_exact(image.file, copy, present, "the vhdx region table"));
    for (std::size_t at = 0; at < kRegionTableBytes; at += kLogSectorBytes) {
      const Bytes page = Bytes(wanted).subspan(at, kLogSectorBytes);
      if (std::ranges::equal(page, Bytes(present).subspan(at, kLogSectorBytes))) continue;
      pages.push_back({.offset = copy + at, .bytes = {page.begin(), page.end()}});
    }
  }
  return pages;
}

}  // namespace sluicebox::image::vhdx
