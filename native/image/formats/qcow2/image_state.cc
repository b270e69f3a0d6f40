#include "image/formats/qcow2/image_state.h"

#include <algorithm>

namespace sluicebox::image::qcow2 {

namespace {

constexpr std::size_t kL2CacheBytes = 32u << 20;

// Where all metadata lies. A table entry that cannot be right, or two that name one cluster, make the image unfit for
// writing; reading goes on around them.
void map_metadata(ImageState& image) {
  const Header& header = image.header;
  const Geometry& geometry = image.geometry();
  const auto damaged = [&](std::string what) {
    if (image.metadata_damage.empty()) image.metadata_damage = std::move(what);
  };
  const auto add_table = [&](std::uint64_t offset, const char* what) {
    if (!geometry.valid_cluster_offset(offset)) return damaged(std::string(what) + " is not a cluster's offset");
    if (!image.begins_in_file(offset)) return damaged(std::string(what) + " points past the end of the file");
    image.metadata.add(offset, geometry.cluster());
  };
  image.metadata.add(0, geometry.cluster());
  image.metadata.add(header.l1_offset, std::uint64_t{header.l1_size} * 8);
  image.metadata.add(header.refcount_table_offset,
                     std::uint64_t{header.refcount_table_clusters} << geometry.cluster_bits);
  for (const std::uint64_t entry : image.refcount_table) {
    if (entry != 0) add_table(entry, "a refcount table entry");
  }
  for (const std::uint64_t entry : image.l1) {
    if ((entry & kOffsetMask) != 0) add_table(entry & kOffsetMask, "an L1 entry");
  }
  if (!image.snapshots.empty()) image.metadata.add(header.snapshots_offset, snapshot_table_bytes(image.snapshots));
  for (const Snapshot& snapshot : image.snapshots) {
    if (snapshot.l1_entries == 0) continue;
    if (geometry.valid_cluster_offset(snapshot.l1_offset) &&
        image.in_file(snapshot.l1_offset, std::uint64_t{snapshot.l1_entries} * 8)) {
      image.metadata.add(snapshot.l1_offset, std::uint64_t{snapshot.l1_entries} * 8);
    } else {
      damaged("a snapshot's L1 table lies outside the file");
    }
  }
  if (auto bitmaps = header.bitmaps(); bitmaps.ok() && bitmaps.value()) {
    image.metadata.add(bitmaps.value()->offset, bitmaps.value()->bytes);
  }
  image.shared_tables = image.metadata.seal();
  if (!image.shared_tables.empty()) {
    damaged("two tables share the cluster at offset " + std::to_string(image.shared_tables.first()));
  }
}

}  // namespace

ImageState::ImageState(File& image_file, Header parsed)
    : file(image_file),
      header(std::move(parsed)),
      metadata(header.geometry),
      l2_tables(image_file, header.geometry.cluster(), kL2CacheBytes) {}

Error ImageState::corrupt(std::string what, std::uint64_t offset) const {
  return Error(ErrorCode::kImageCorrupt, std::move(what)).on(file.path()).at(offset);
}

Status ImageState::write(std::uint64_t offset, Bytes data) {
  TRY(file.write_at(offset, data));
  file_end = std::max(file_end, offset + data.size());
  return {};
}

Result<std::vector<std::uint64_t>> read_table(const ImageState& image, std::uint64_t offset, std::uint64_t count,
                                              const char* what) {
  if (!image.in_file(offset, count * 8)) return image.corrupt(std::string(what) + " is not inside the file", offset);
  std::vector<std::uint64_t> entries(count);
  std::vector<std::byte> slice(std::min<std::uint64_t>(count * 8, 1u << 20));
  for (std::uint64_t done = 0; done < count;) {
    const std::uint64_t batch = std::min<std::uint64_t>(count - done, slice.size() / 8);
    TRY(read_exact(image.file, offset + done * 8, MutableBytes(slice).first(batch * 8), what));
    for (std::uint64_t i = 0; i < batch; ++i) entries[done + i] = load_be64(slice.data() + i * 8);
    done += batch;
  }
  return entries;
}

Result<std::unique_ptr<ImageState>> load_image(File& file, bool header_only) {
  const std::uint64_t file_size = TRY(file.size());
  std::vector<std::byte> head(std::min<std::uint64_t>(file_size, kSectorBytes));
  TRY(read_exact(file, 0, head, "the header"));
  auto cluster_size = cluster_size_of(head);
  if (!cluster_size.ok()) return std::move(cluster_size).error().on(file.path());
  const std::size_t had = head.size();
  head.resize(std::min(file_size, *cluster_size));
  TRY(read_exact(file, had, MutableBytes(head).subspan(had), "the header"));
  auto header = parse_header(head);
  if (!header.ok()) return std::move(header).error().on(file.path());

  auto image = std::make_unique<ImageState>(file, std::move(header).value());
  image->file_end = file_size;
  image->snapshots = TRY(read_snapshot_table(file, image->header, file_size));
  if (header_only) return image;
  image->l1 = TRY(read_table(*image, image->header.l1_offset, image->header.l1_size, "the L1 table"));
  const std::uint64_t table_entries =
      (std::uint64_t{image->header.refcount_table_clusters} << image->geometry().cluster_bits) / 8;
  // The last cluster of the table may be cut by the end of the file, as in an image of which only the used part of each
  // table was written: what is missing is zero.
  const std::uint64_t offset = image->header.refcount_table_offset;
  if (!image->begins_in_file(offset)) return image->corrupt("the refcount table is not inside the file", offset);
  const std::uint64_t in_file = std::min(table_entries, (file_size - offset) / 8);
  if (table_entries - in_file > image->geometry().cluster() / 8) {
    return image->corrupt("the refcount table is not inside the file", offset);
  }
  image->refcount_table = TRY(read_table(*image, offset, in_file, "the refcount table"));
  image->refcount_table.resize(table_entries);
  map_metadata(*image);
  return image;
}

}  // namespace sluicebox::image::qcow2
