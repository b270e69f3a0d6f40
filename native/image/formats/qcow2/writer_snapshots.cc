// Internal snapshots: each is a copy of the L1 table of a moment, and counts all that it leads to once more.
//
// While counts and the flags that follow from them ("COPIED": the count is 1) are changed one after the other, they
// disagree. In version 3 the image is marked unclean meanwhile, so that whoever opens it after a crash counts anew.
// Version 2 has no such mark: there flags are taken away before counts go up, and set after they went down, so that a
// crash leaves a flag that is missing at worst, which costs a copy and no byte.
#include <algorithm>
#include <array>

#include "base/checked.h"
#include "image/formats/qcow2/check.h"
#include "image/formats/qcow2/mapping.h"
#include "image/formats/qcow2/writer.h"
#include "image/printable.h"

namespace sluicebox::image::qcow2 {

namespace {

constexpr std::size_t kMaxSnapshotName = 255;  // what other tools keep of it
constexpr std::uint64_t kMostDiskBytes = ~std::uint64_t{0} >> 1;

Error too_many(const File& file, const char* what) {
  return Error(ErrorCode::kUnsupported, std::string("the image has no room for another snapshot: ") + what)
      .on(file.path())
      .advise("remove a snapshot first");
}

}  // namespace

Status Writer::create_snapshot(const NewSnapshot& wanted, ProgressSink& progress, const CancelToken& cancel) {
  TRY(begin_snapshots(progress, cancel));
  std::vector<std::byte> table = TRY(read_snapshots());
  const auto texts = snapshot_texts(table, image_.snapshots);
  NewSnapshot snapshot = wanted;
  snapshot.id = next_snapshot_id(texts);
  if (snapshot.name.empty() || snapshot.name.size() > kMaxSnapshotName) {
    return Error(ErrorCode::kInvalidArgument, "name: a snapshot's has 1 to 255 bytes").on(image_.file.path());
  }
  if (index_of_snapshot(texts, snapshot.name) != texts.size()) {
    return Error(ErrorCode::kSnapshotExists, "the image has a snapshot " + printable(snapshot.name) + " already")
        .on(image_.file.path());
  }
  if (image_.snapshots.size() == kMaxSnapshots) return too_many(image_.file, "there are 65536");
  TRY(require_countable(image_.l1));
  TRY(mark_unclean(true));
  TRY(guarded(drop_flags(image_.l1, true)));
  TRY(flush());
  TRY(guarded(raise_tree(image_.l1)));
  snapshot.disk_bytes = image_.header.size;
  snapshot.l1_entries = static_cast<std::uint32_t>(image_.l1.size());
  snapshot.l1_offset = TRY(place_l1(image_.l1));
  const std::vector<std::byte> entry = snapshot_entry(snapshot);
  table.insert(table.end(), entry.begin(), entry.end());
  TRY(guarded(switch_snapshots(table, image_.header.snapshot_count + 1)));
  TRY(flush());
  return mark_unclean(false);
}

// Of one sector are the disk's size and the place of its L1 table: one write makes the disk another.
Status Writer::apply_snapshot(const std::string& id_or_name, ProgressSink& progress, const CancelToken& cancel) {
  TRY(begin_snapshots(progress, cancel));
  const Snapshot snapshot = image_.snapshots[TRY(find_snapshot_index(id_or_name))];
  const std::uint64_t disk_bytes = snapshot.disk_bytes.value_or(image_.header.size);
  if (disk_bytes > kMostDiskBytes || image_.geometry().l1_entries_for(disk_bytes) > kMaxL1Entries) {
    return image_.corrupt(
        "a snapshot claims a disk of " + std::to_string(disk_bytes) + " bytes, which cannot be mapped",
        image_.header.snapshots_offset);
  }
  std::vector<std::uint64_t> l1 = TRY(l1_of(snapshot));
  TRY(require_countable(l1));
  TRY(guarded(drop_flags(l1, false)));
  TRY(flush());
  TRY(guarded(raise_tree(l1)));
  // A disk of no bytes has a table all the same.
  l1.resize(std::max<std::uint64_t>({1, l1.size(), image_.geometry().l1_entries_for(disk_bytes)}));
  const std::uint64_t offset = TRY(place_l1(l1));
  TRY(flush());
  std::array<std::byte, at::kL1Offset + 8 - at::kSize> fields;
  store_be64(fields.data(), disk_bytes);
  store_be32(fields.data() + at::kCryptMethod - at::kSize, image_.header.crypt_method);
  store_be32(fields.data() + at::kL1Size - at::kSize, static_cast<std::uint32_t>(l1.size()));
  store_be64(fields.data() + at::kL1Offset - at::kSize, offset);
  TRY(switch_header(at::kSize, fields));
  // From here on the old tables are nobody's, or other snapshots' alone.
  TRY(guarded(release_tree(image_.l1)));
  release_run(image_.header.l1_offset, std::uint64_t{image_.header.l1_size} * 8);
  image_.header.size = disk_bytes;
  image_.header.l1_offset = offset;
  image_.header.l1_size = static_cast<std::uint32_t>(l1.size());
  image_.l1 = std::move(l1);
  data_written_ = true;
  return flush();
}

Status Writer::remove_snapshot(const std::string& id_or_name, ProgressSink& progress, const CancelToken& cancel) {
  TRY(begin_snapshots(progress, cancel));
  std::vector<std::byte> table = TRY(read_snapshots());
  const std::size_t index = TRY(find_snapshot_index(id_or_name));
  const Snapshot snapshot = image_.snapshots[index];
  const std::vector<std::uint64_t> l1 = TRY(l1_of(snapshot));
  std::uint64_t at = 0;
  for (std::size_t i = 0; i < index; ++i) at += image_.snapshots[i].entry_bytes;
  const auto entry = table.begin() + static_cast<std::ptrdiff_t>(at);
  table.erase(entry, entry + static_cast<std::ptrdiff_t>(snapshot.entry_bytes));
  TRY(mark_unclean(true));
  TRY(guarded(switch_snapshots(table, image_.header.snapshot_count - 1)));
  TRY(guarded(release_tree(l1)));
  release_run(snapshot.l1_offset, l1.size() * 8);
  data_written_ = true;
  TRY(flush());
  TRY(guarded(set_flags()));
  TRY(flush());
  return mark_unclean(false);
}

// Whole and counted as it ought to be: what is built on would otherwise take from somebody what is his.
Status Writer::begin_snapshots(ProgressSink& progress, const CancelToken& cancel) {
  TRY(prepare(progress, cancel));
  TRY(flush());
  const CheckReport report = TRY(check_qcow2(image_, Repair::kNone, progress, cancel));
  if (report.corruptions == 0) return {};
  return image_.corrupt("the image is damaged, so its snapshots are not changed", 0).advise("run check with repair");
}

Result<std::vector<std::byte>> Writer::read_snapshots() {
  std::vector<std::byte> table(snapshot_table_bytes(image_.snapshots));
  TRY(read_padded(image_.file, image_.header.snapshots_offset, table));
  return table;
}

Result<std::size_t> Writer::find_snapshot_index(const std::string& id_or_name) {
  const auto texts = snapshot_texts(TRY(read_snapshots()), image_.snapshots);
  const std::size_t index = index_of_snapshot(texts, id_or_name);
  if (index != texts.size()) return index;
  return Error(ErrorCode::kSnapshotNotFound, "the image has no snapshot " + printable(id_or_name))
      .on(image_.file.path())
      .advise("info tells which it has");
}

Result<std::vector<std::uint64_t>> Writer::l1_of(const Snapshot& snapshot) {
  const CancelToken never;
  return read_table(image_, snapshot.l1_offset, snapshot.l1_entries, "a snapshot's L1 table", never);
}

// visit(cluster) for each host cluster that the tree leads to, as often as it is counted; its tables included.
template <typename Visit>
Status Writer::walk_tree(const std::vector<std::uint64_t>& l1, const Visit& visit) {
  const Geometry& geometry = image_.geometry();
  for (const std::uint64_t raw : l1) {
    const std::uint64_t offset = raw & kOffsetMask;
    if (offset == 0) continue;
    const auto table = TRY(image_.l2_tables.load(offset));
    TRY(visit(offset >> geometry.cluster_bits));
    for (std::uint64_t i = 0; i < geometry.l2_entries(); ++i) {
      if (raw_entry(*table, i).empty()) continue;
      const L2Entry entry = TRY(entry_at(*table, i));
      if (entry.host == 0) continue;
      const std::uint64_t bytes = entry.compressed ? entry.bytes : geometry.cluster();
      const std::uint64_t last = (entry.host + bytes - 1) >> geometry.cluster_bits;
      for (std::uint64_t each = entry.host >> geometry.cluster_bits; each <= last; ++each) TRY(visit(each));
    }
    TRY(relieve());
  }
  return {};
}

// Known before anything is written: whether the width of a count has room for one more of each.
Status Writer::require_countable(const std::vector<std::uint64_t>& l1) {
  ReferenceCounter more;
  TRY(walk_tree(l1, [&](std::uint64_t cluster) -> Status {
    if (more.add(cluster, 1)) return {};
    return Error(ErrorCode::kOutOfMemory, "the image's clusters are too scattered to count").on(image_.file.path());
  }));
  Status outcome = ok_status();
  more.for_each([&](std::uint64_t cluster, std::uint32_t times) {
    if (!outcome.ok()) return;
    const auto count = refcounts_.get(cluster);
    if (!count.ok()) {
      outcome = count.error();
    } else if (image_.geometry().max_refcount() - count.value() < times) {
      outcome = too_many(image_.file, "its reference counts are too narrow");
    }
  });
  return outcome;
}

Status Writer::raise_tree(const std::vector<std::uint64_t>& l1) {
  return walk_tree(l1, [&](std::uint64_t cluster) -> Status {
    TRY(refcounts_.raise(cluster));
    allocator_.raised(cluster);
    return {};
  });
}

Status Writer::release_tree(const std::vector<std::uint64_t>& l1) {
  return walk_tree(l1, [&](std::uint64_t cluster) -> Status {
    released_.push_back(cluster);
    data_written_ = true;  // so that a flush() comes to them, whatever else there is to do
    return {};
  });
}

void Writer::release_run(std::uint64_t offset, std::uint64_t bytes) {
  const Geometry& geometry = image_.geometry();
  const std::uint64_t first = offset >> geometry.cluster_bits;
  for (std::uint64_t i = 0; i < geometry.clusters_for(bytes); ++i) released_.push_back(first + i);
}

// What the tables lead to is about to be shared. `active`: they are the disk's own, and so are the L1's flags.
Status Writer::drop_flags(const std::vector<std::uint64_t>& l1, bool active) {
  for (std::uint64_t l1_index = 0; l1_index < l1.size(); ++l1_index) {
    const std::uint64_t offset = l1[l1_index] & kOffsetMask;
    if (offset == 0) continue;
    const auto table = TRY(image_.l2_tables.load(offset));
    for (std::uint64_t i = 0; i < image_.geometry().l2_entries(); ++i) {
      RawL2Entry raw = raw_entry(*table, i);
      if ((raw.descriptor & kEntryCompressed) != 0) continue;
      raw.descriptor &= ~kEntryCopied;
      set_raw_entry(*table, i, raw);
    }
    if (active && (image_.l1[l1_index] & kEntryCopied) != 0) {
      image_.l1[l1_index] &= ~kEntryCopied;
      dirty_l1_.insert(l1_index);
    }
    TRY(relieve());
  }
  return {};
}

// As the counts are by now.
Status Writer::set_flags() {
  const Geometry& geometry = image_.geometry();
  for (std::uint64_t l1_index = 0; l1_index < image_.l1.size(); ++l1_index) {
    const std::uint64_t offset = image_.l1[l1_index] & kOffsetMask;
    // What shares a table shares all that it leads to.
    if (offset == 0 || TRY(refcounts_.get(offset >> geometry.cluster_bits)) != 1) continue;
    const auto table = TRY(image_.l2_tables.load(offset));
    for (std::uint64_t i = 0; i < geometry.l2_entries(); ++i) {
      if (raw_entry(*table, i).empty()) continue;
      L2Entry entry = TRY(entry_at(*table, i));
      if (entry.host == 0 || entry.compressed) continue;
      entry.copied = TRY(refcounts_.get(entry.host >> geometry.cluster_bits)) == 1;
      set_entry(*table, i, entry);
    }
    if ((image_.l1[l1_index] & kEntryCopied) == 0) {
      image_.l1[l1_index] |= kEntryCopied;
      dirty_l1_.insert(l1_index);
    }
    TRY(relieve());
  }
  return {};
}

// Where nothing points yet; durable with the next flush().
Result<std::uint64_t> Writer::place(Bytes bytes) {
  if (bytes.empty()) return std::uint64_t{0};
  const Geometry& geometry = image_.geometry();
  const ClusterRun run = TRY(allocator_.allocate_row(geometry.clusters_for(bytes.size())));
  for (std::uint64_t i = 0; i < run.clusters; ++i) image_.metadata.insert(run.offset + (i << geometry.cluster_bits));
  TRY(image_.write(run.offset, bytes));
  data_written_ = true;
  return run.offset;
}

Result<std::uint64_t> Writer::place_l1(const std::vector<std::uint64_t>& l1) {
  std::vector<std::byte> raw(l1.size() * 8);
  for (std::size_t i = 0; i < l1.size(); ++i) store_be64(raw.data() + i * 8, l1[i] & ~kEntryCopied);
  return place(raw);
}

// Number and place are neighbours in the header's first sector: one write switches both.
Status Writer::switch_snapshots(const std::vector<std::byte>& table, std::uint32_t count) {
  if (table.size() > kMaxSnapshotTableBytes) return too_many(image_.file, "their table has 64 MiB");
  const std::uint64_t offset = TRY(place(table));
  TRY(flush());
  std::array<std::byte, 12> pointer;
  store_be32(pointer.data(), count);
  store_be64(pointer.data() + 4, offset);
  TRY(switch_header(at::kSnapshotCount, pointer));
  release_run(image_.header.snapshots_offset, snapshot_table_bytes(image_.snapshots));
  image_.header.snapshot_count = count;
  image_.header.snapshots_offset = offset;
  data_written_ = true;
  return {};
}

// Within the header's first sector, and durable on return.
Status Writer::switch_header(std::uint64_t offset, Bytes fields) {
  Status outcome = image_.write(offset, fields);
  if (outcome.ok()) outcome = image_.file.sync();
  // Which of the two the file has now is not known.
  if (!outcome.ok()) failed_ = outcome.error();
  return outcome;
}

Status Writer::mark_unclean(bool unclean) {
  if (image_.header.version < 3) return {};
  const auto mark = static_cast<std::uint64_t>(Incompatible::kDirty);
  const std::uint64_t bits = unclean ? image_.header.incompatible | mark : image_.header.incompatible & ~mark;
  std::array<std::byte, 8> raw;
  store_be64(raw.data(), bits);
  TRY(switch_header(at::kIncompatible, raw));
  image_.header.incompatible = bits;
  return {};
}

}  // namespace sluicebox::image::qcow2
