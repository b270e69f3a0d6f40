#include "image/formats/qcow2/bitmap_directory.h"

namespace sluicebox::image::qcow2 {

namespace {

constexpr std::uint32_t kInUse = 1u << 0, kAuto = 1u << 1;
constexpr unsigned kMaxGranularityBits = 63;
constexpr std::uint64_t kMaxDirectoryShown = 16u << 20;

Status add_bitmap(const ImageState& image, std::uint64_t table_at, std::uint64_t entries,
                  std::vector<HostRange>& ranges) {
  const Geometry& geometry = image.geometry();
  if (!geometry.valid_cluster_offset(table_at) || !image.in_file(table_at, entries * 8)) {
    return image.corrupt("a bitmap's table is unaligned or outside the file", table_at);
  }
  ranges.push_back({table_at, entries * 8});
  for (const std::uint64_t entry : TRY(read_table(image, table_at, entries, "a bitmap's table", CancelToken()))) {
    const std::uint64_t offset = entry & kOffsetMask;
    if ((entry & ~(kOffsetMask | 1)) != 0 || (offset != 0 && (entry & 1) != 0)) {
      return image.corrupt("a bitmap's table has an entry with reserved bits set", table_at);
    }
    if (offset == 0) continue;
    if (!geometry.valid_cluster_offset(offset) || !image.begins_in_file(offset)) {
      return image.corrupt("a bitmap's data is unaligned or past the end of the file", table_at);
    }
    ranges.push_back({offset, geometry.cluster()});
  }
  return {};
}

// One entry of the directory, of which the file has all.
struct Entry {
  std::uint64_t at = 0;  // in the file
  std::uint64_t table_at = 0, table_entries = 0;
  PersistentBitmap bitmap;
};

Result<std::vector<Entry>> read_entries(const ImageState& image, const BitmapDirectory& directory) {
  if (!image.in_file(directory.offset, directory.bytes)) {
    return image.corrupt("the bitmap directory is not inside the file", directory.offset);
  }
  std::vector<std::byte> raw(directory.bytes);
  TRY(read_exact(image.file, directory.offset, raw, "the bitmap directory"));
  std::vector<Entry> entries;
  std::uint64_t at = 0;
  for (std::uint32_t i = 0; i < directory.count; ++i) {
    if (raw.size() - at < kBitmapEntryBytes) {
      return image.corrupt("the bitmap directory ends inside an entry", directory.offset + at);
    }
    const std::byte* entry = raw.data() + at;
    const unsigned granularity_bits = std::to_integer<unsigned>(entry[17]);
    const std::uint64_t name_bytes = load_be16(entry + 18);
    const std::uint64_t extra_bytes = load_be32(entry + 20);
    const std::uint64_t used = (kBitmapEntryBytes + extra_bytes + name_bytes + 7) / 8 * 8;
    if (raw.size() - at < used) {
      return image.corrupt("the bitmap directory ends inside an entry", directory.offset + at);
    }
    if (granularity_bits > kMaxGranularityBits) {
      return image.corrupt("a bitmap's granularity is impossible", directory.offset + at);
    }
    const std::uint32_t flags = load_be32(entry + 12);
    const std::byte* name = entry + kBitmapEntryBytes + extra_bytes;
    entries.push_back({.at = directory.offset + at,
                       .table_at = load_be64(entry),
                       .table_entries = load_be32(entry + 8),
                       .bitmap = {.name = {reinterpret_cast<const char*>(name), name_bytes},
                                  .granularity = std::uint64_t{1} << granularity_bits,
                                  .in_use = (flags & kInUse) != 0,
                                  .automatic = (flags & kAuto) != 0}});
    at += used;
  }
  if (at != raw.size()) return image.corrupt("the bitmap directory has bytes to spare", directory.offset + at);
  return entries;
}

}  // namespace

Result<std::vector<PersistentBitmap>> read_bitmaps(const ImageState& image) {
  std::vector<PersistentBitmap> bitmaps;
  const auto directory = TRY(image.header.bitmaps());
  if (!directory || (image.header.autoclear & kAutoclearBitmaps) == 0) return bitmaps;
  if (directory->bytes > kMaxDirectoryShown) {
    return Error(ErrorCode::kUnsupported, "the bitmap directory is larger than 16 MiB").on(image.file.path());
  }
  for (Entry& entry : TRY(read_entries(image, *directory))) bitmaps.push_back(std::move(entry.bitmap));
  return bitmaps;
}

Result<std::vector<HostRange>> read_bitmap_ranges(const ImageState& image) {
  std::vector<HostRange> ranges;
  const auto directory = TRY(image.header.bitmaps());
  if (!directory) return ranges;
  std::uint64_t table_bytes = 0;
  const std::vector<Entry> entries = TRY(read_entries(image, *directory));
  ranges.push_back({directory->offset, directory->bytes});
  for (const Entry& entry : entries) {
    // A table may lie in a hole, so the file's length alone bounds nothing.
    if (entry.table_entries > kMaxBitmapBytes >> image.geometry().cluster_bits) {
      return image.corrupt("a bitmap is above 512 MiB", entry.at);
    }
    // Tables do not share bytes, so all of them together are no longer than the file.
    table_bytes += entry.table_entries * 8;
    if (table_bytes > image.file_end) {
      return image.corrupt("the bitmaps' tables are longer than the file", entry.at);
    }
    TRY(add_bitmap(image, entry.table_at, entry.table_entries, ranges));
  }
  return ranges;
}

}  // namespace sluicebox::image::qcow2
