#include "image/formats/qcow2/image_state.h"

#include <algorithm>

#include "image/printable.h"

namespace sluicebox::image::qcow2 {

namespace {

constexpr std::size_t kWriterCacheBytes = 32u << 20;
constexpr std::size_t kReaderCacheBytes = 4u << 20;
constexpr std::size_t kEntriesBetweenChecks = 1u << 16;

// How many ranges map_metadata() adds at most.
std::size_t count_metadata(const ImageState& image) {
  const auto used = [](std::uint64_t entry) { return entry != 0; };
  constexpr std::size_t kOthers = 5;  // header, both tables, the snapshot table, the bitmap directory
  return kOthers + image.snapshots.size() +
         static_cast<std::size_t>(std::count_if(image.refcount_table.begin(), image.refcount_table.end(), used) +
                                  std::count_if(image.l1.begin(), image.l1.end(), used));
}

// Where all metadata lies. A table entry that cannot be right, or two that name one cluster, make the image unfit for
// writing; reading goes on around them.
Status map_metadata(ImageState& image, const CancelToken& cancel) {
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
  const std::size_t ranges = count_metadata(image);
  TRY(image.tables.take(MetadataMap::memory_bytes(ranges)));
  image.metadata.reserve(ranges);
  image.metadata.add(0, geometry.cluster());
  image.metadata.add(header.l1_offset, std::uint64_t{header.l1_size} * 8);
  if (!image.salvage) {
    image.metadata.add(header.refcount_table_offset,
                       std::uint64_t{header.refcount_table_clusters} << geometry.cluster_bits);
  }
  std::size_t seen = 0;
  for (const std::uint64_t entry : image.refcount_table) {
    if (++seen % kEntriesBetweenChecks == 0) TRY(cancel.check());
    if (entry != 0) add_table(entry, "a refcount table entry");
  }
  for (const std::uint64_t entry : image.l1) {
    if (++seen % kEntriesBetweenChecks == 0) TRY(cancel.check());
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
  if (auto bitmaps = header.bitmaps(); bitmaps.ok() && bitmaps.value() && !image.salvage) {
    image.metadata.add(bitmaps.value()->offset, bitmaps.value()->bytes);
  }
  TRY(cancel.check());
  image.shared_tables = image.metadata.seal();
  image.tables.give_back(MetadataMap::memory_bytes(ranges));
  TRY(image.tables.take(image.metadata.kept_bytes() + image.shared_tables.memory_bytes()));
  if (!image.shared_tables.empty()) {
    damaged("two tables share the cluster at offset " + std::to_string(image.shared_tables.first()));
  }
  return {};
}

// From here on the active L1 table is the snapshot's, whose L2 tables and clusters nobody writes to.
Status show_snapshot(ImageState& image, const std::string& id_or_name) {
  Header& header = image.header;
  const Snapshot* snapshot = find_snapshot(image.snapshots, image.shown_snapshots, id_or_name);
  if (snapshot == nullptr) {
    return Error(ErrorCode::kInvalidArgument,
                 "snapshot: the image has none with the id or name " + image::printable(id_or_name))
        .on(image.file.path())
        .advise("info tells which it has");
  }
  const std::uint64_t disk_bytes = snapshot->disk_bytes.value_or(header.size);
  if (snapshot->l1_entries < image.geometry().l1_entries_for(disk_bytes)) {
    return image.corrupt("a snapshot's L1 table is too small for its disk", snapshot->l1_offset);
  }
  if (snapshot->l1_entries != 0 && !image.geometry().valid_cluster_offset(snapshot->l1_offset)) {
    return image.corrupt("a snapshot's L1 table is not at a cluster's offset", snapshot->l1_offset);
  }
  header.size = disk_bytes;
  header.l1_offset = snapshot->l1_entries == 0 ? 0 : snapshot->l1_offset;
  header.l1_size = snapshot->l1_entries;
  return {};
}

}  // namespace

ImageState::ImageState(File& image_file, Header parsed, const LoadOptions& options)
    : file(image_file),
      header(std::move(parsed)),
      salvage(options.salvage),
      tables(options.budget ? options.budget : std::make_shared<MetadataBudget>()),
      metadata(header.geometry),
      l2_tables(image_file, header.geometry.cluster(), options.writable ? kWriterCacheBytes : kReaderCacheBytes,
                tables.budget(), options.salvage ? std::byte{0xff} : std::byte{0}) {}

Error ImageState::corrupt(std::string what, std::uint64_t offset) const {
  return Error(ErrorCode::kImageCorrupt, std::move(what)).on(file.path()).at(offset);
}

Status ImageState::write(std::uint64_t offset, Bytes data) {
  TRY(file.write_at(offset, data));
  file_end = std::max(file_end, offset + data.size());
  return {};
}

Result<std::vector<std::uint64_t>> read_table(const ImageState& image, std::uint64_t offset, std::uint64_t count,
                                              const char* what, const CancelToken& cancel) {
  if (!image.in_file(offset, count * 8)) return image.corrupt(std::string(what) + " is not inside the file", offset);
  std::vector<std::uint64_t> entries(count);
  std::vector<std::byte> slice(std::min<std::uint64_t>(count * 8, 1u << 20));
  for (std::uint64_t done = 0; done < count;) {
    TRY(cancel.check());
    const std::uint64_t batch = std::min<std::uint64_t>(count - done, slice.size() / 8);
    TRY(read_exact(image.file, offset + done * 8, MutableBytes(slice).first(batch * 8), what));
    for (std::uint64_t i = 0; i < batch; ++i) entries[done + i] = load_be64(slice.data() + i * 8);
    done += batch;
  }
  return entries;
}

namespace {

// What the end of the file cuts off of it names clusters that are nowhere.
Result<std::vector<std::uint64_t>> read_l1(const ImageState& image, const CancelToken& cancel) {
  const std::uint64_t offset = image.header.l1_offset;
  const std::uint64_t count = image.header.l1_size;
  if (!image.salvage || image.in_file(offset, count * 8)) {
    return read_table(image, offset, count, "the L1 table", cancel);
  }
  const std::uint64_t in_file = image.begins_in_file(offset) ? (image.file_end - offset) / 8 : 0;
  auto entries = TRY(read_table(image, in_file == 0 ? 0 : offset, in_file, "the L1 table", cancel));
  entries.resize(count, kOffsetMask);
  return entries;
}

// The last cluster of it may be cut by the end of the file, as in an image of which only the used part of each table
// was written: what is missing is zero.
Result<std::vector<std::uint64_t>> read_refcount_table(ImageState& image, const CancelToken& cancel) {
  const std::uint64_t cluster = image.geometry().cluster();
  const std::uint64_t entries = image.header.refcount_table_clusters * cluster / 8;
  const std::uint64_t offset = image.header.refcount_table_offset;
  if (!image.begins_in_file(offset)) return image.corrupt("the refcount table is not inside the file", offset);
  const std::uint64_t in_file = std::min(entries, (image.file_end - offset) / 8);
  if (entries - in_file > cluster / 8) return image.corrupt("the refcount table is not inside the file", offset);
  TRY(image.tables.take(entries * 8));
  auto table = TRY(read_table(image, offset, in_file, "the refcount table", cancel));
  table.resize(entries);
  return table;
}

}  // namespace

Result<std::unique_ptr<ImageState>> load_image(File& file, const LoadOptions& options) {
  const CancelToken never;
  const CancelToken& cancel = options.cancel != nullptr ? *options.cancel : never;
  TRY(cancel.check());
  const std::uint64_t file_size = TRY(file.size());
  std::vector<std::byte> head(std::min<std::uint64_t>(file_size, kSectorBytes));
  TRY(read_exact(file, 0, head, "the header"));
  auto cluster_size = cluster_size_of(head);
  if (!cluster_size.ok()) return std::move(cluster_size).error().on(file.path());
  const std::size_t had = head.size();
  head.resize(std::min(file_size, *cluster_size));
  if (const Status rest = read_exact(file, had, MutableBytes(head).subspan(had), "the header"); !rest.ok()) {
    if (!options.salvage) return rest.error();
    head.resize(had);  // most of a header's cluster is not used
  }
  auto header = parse_header(head);
  if (!header.ok()) return std::move(header).error().on(file.path());

  auto image = std::make_unique<ImageState>(file, std::move(header).value(), options);
  image->file_end = file_size;
  TRY(image->tables.take(head.size()));
  if (!options.salvage || options.snapshot) {
    SnapshotTable snapshots = TRY(read_snapshot_table(file, image->header, file_size, cancel));
    TRY(image->tables.take(snapshots.memory_bytes()));
    image->snapshots = std::move(snapshots.entries);
    image->shown_snapshots = std::move(snapshots.shown);
  }
  if (options.snapshot) TRY(show_snapshot(*image, *options.snapshot));
  if (options.salvage) image->snapshots.clear();
  if (options.header_only) return image;
  // The last part is the table that each cache is sure to hold.
  TRY(image->tables.take(std::uint64_t{image->header.l1_size} * 8 + image->geometry().cluster()));
  image->l1 = TRY(read_l1(*image, cancel));
  if (!options.salvage) image->refcount_table = TRY(read_refcount_table(*image, cancel));
  TRY(map_metadata(*image, cancel));
  return image;
}

}  // namespace sluicebox::image::qcow2
