#include "image/formats/qcow2/bitmap_directory.h"

namespace sluicebox::image::qcow2 {

namespace {

constexpr std::uint64_t kEntryBytes = 24;

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

}  // namespace

Result<std::vector<HostRange>> read_bitmap_ranges(const ImageState& image) {
  std::vector<HostRange> ranges;
  const auto directory = TRY(image.header.bitmaps());
  if (!directory) return ranges;
  if (!image.in_file(directory->offset, directory->bytes)) {
    return image.corrupt("the bitmap directory is not inside the file", directory->offset);
  }
  ranges.push_back({directory->offset, directory->bytes});
  std::vector<std::byte> raw(directory->bytes);
  TRY(read_exact(image.file, directory->offset, raw, "the bitmap directory"));
  std::uint64_t at = 0;
  std::uint64_t table_bytes = 0;
  for (std::uint32_t i = 0; i < directory->count; ++i) {
    if (raw.size() - at < kEntryBytes) {
      return image.corrupt("the bitmap directory ends inside an entry", directory->offset + at);
    }
    const std::byte* entry = raw.data() + at;
    const std::uint64_t name_bytes = load_be16(entry + 18);
    const std::uint64_t extra_bytes = load_be32(entry + 20);
    const std::uint64_t entries = load_be32(entry + 8);
    const std::uint64_t used = (kEntryBytes + extra_bytes + name_bytes + 7) / 8 * 8;
    if (raw.size() - at < used) {
      return image.corrupt("the bitmap directory ends inside an entry", directory->offset + at);
    }
    // A table may lie in a hole, so the file's length alone bounds nothing.
    if (entries > kMaxBitmapBytes >> image.geometry().cluster_bits) {
      return image.corrupt("a bitmap is above 512 MiB", directory->offset + at);
    }
    // Tables do not share bytes, so all of them together are no longer than the file.
    table_bytes += entries * 8;
    if (table_bytes > image.file_end) {
      return image.corrupt("the bitmaps' tables are longer than the file", directory->offset + at);
    }
    TRY(add_bitmap(image, load_be64(entry), entries, ranges));
    at += used;
  }
  if (at != raw.size()) return image.corrupt("the bitmap directory has bytes to spare", directory->offset + at);
  return ranges;
}

}  // namespace sluicebox::image::qcow2
