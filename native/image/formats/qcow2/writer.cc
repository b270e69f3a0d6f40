#include "image/formats/qcow2/writer.h"

#include <algorithm>
#include <array>

#include "image/formats/qcow2/disk_reader.h"
#include "image/formats/qcow2/mapping.h"
#include "image/formats/qcow2/survey.h"

namespace sluicebox::image::qcow2 {

namespace {

constexpr std::size_t kMaxDirtyBytes = 24u << 20;
constexpr std::size_t kMaxReleased = 1u << 20;
constexpr std::size_t kZeroChunk = 1u << 20;

}  // namespace

Status Writer::write(std::uint64_t offset, Bytes data) {
  TRY(prepare());
  const std::uint64_t cut = data.size() % image_.geometry().unit();
  Bytes whole = data.first(data.size() - cut);
  std::uint64_t at = offset;
  while (!whole.empty()) {
    auto done = write_some(at, whole);
    if (!done.ok()) return guarded(std::move(done).error());
    at += *done;
    whole = whole.subspan(*done);
  }
  if (cut != 0) TRY(guarded(write_tail_padded(at, data.last(cut))));
  return relieve();
}

// The disk ends inside this unit. The rest is written as zeros, for the day when the disk grows.
Status Writer::write_tail_padded(std::uint64_t offset, Bytes data) {
  std::vector<std::byte> padded(image_.geometry().unit());
  std::memcpy(padded.data(), data.data(), data.size());
  TRY(write_some(offset, padded));
  return {};
}

// Writes a run of clusters that lie side by side in the file, or a part of one; returns its bytes.
Result<std::uint64_t> Writer::write_some(std::uint64_t offset, Bytes data) {
  const Geometry& geometry = image_.geometry();
  const std::uint64_t span = geometry.l2_span();
  data = data.first(std::min<std::uint64_t>(data.size(), span - offset % span));
  const auto table = TRY(table_for(offset / span));
  const std::uint64_t index = offset % span >> geometry.cluster_bits;
  const std::uint64_t begin = geometry.in_cluster(offset);
  if (begin != 0 || data.size() < geometry.cluster()) {
    const Bytes part = data.first(std::min<std::uint64_t>(data.size(), geometry.cluster() - begin));
    TRY(write_within(*table, index, offset, part));
    return part.size();
  }
  const L2Entry first = TRY(entry_at(*table, index));
  if (TRY(owns(*table, index, first))) return overwrite(*table, index, data);
  return write_new(*table, index, data);
}

// Zero entries that kept their cluster are included: their bytes are not visible before the entry changes.
Result<std::uint64_t> Writer::overwrite(const CachedTable& table, std::uint64_t index, Bytes data) {
  const Geometry& geometry = image_.geometry();
  const std::uint64_t host = TRY(entry_at(table, index)).host;
  const std::uint64_t most = data.size() >> geometry.cluster_bits;
  std::uint64_t count = 1;
  while (count < most) {
    const L2Entry next = TRY(entry_at(table, index + count));
    if (next.host != host + (count << geometry.cluster_bits) || !TRY(owns(table, index + count, next))) break;
    ++count;
  }
  const std::uint64_t bytes = count << geometry.cluster_bits;
  data_written_ = true;
  TRY(image_.write(host, data.first(bytes)));
  auto& changed = const_cast<CachedTable&>(table);
  for (std::uint64_t i = 0; i < count; ++i) {
    set_entry(changed, index + i, own_cluster(host + (i << geometry.cluster_bits), geometry.all_units()));
  }
  return bytes;
}

Result<std::uint64_t> Writer::write_new(CachedTable& table, std::uint64_t index, Bytes data) {
  const Geometry& geometry = image_.geometry();
  const std::uint64_t most = data.size() >> geometry.cluster_bits;
  std::uint64_t count = 1;
  while (count < most) {
    const L2Entry next = TRY(entry_at(table, index + count));
    if (TRY(owns(table, index + count, next))) break;
    ++count;
  }
  const ClusterRun run = TRY(allocator_.allocate(count));
  data_written_ = true;
  const std::uint64_t bytes = run.clusters << geometry.cluster_bits;
  if (auto written = image_.write(run.offset, data.first(bytes)); !written.ok()) {
    TRY(give_back(run, 0));
    return std::move(written).error();
  }
  for (std::uint64_t i = 0; i < run.clusters; ++i) {
    const L2Entry old = TRY(entry_at(table, index + i));
    TRY(release(old));
    set_entry(table, index + i, own_cluster(run.offset + (i << geometry.cluster_bits), geometry.all_units()));
  }
  return bytes;
}

// Whole units of one cluster. One that is not the entry's alone stays as it is: what it holds besides moves along.
Status Writer::write_within(CachedTable& table, std::uint64_t index, std::uint64_t offset, Bytes data) {
  const Geometry& geometry = image_.geometry();
  const std::uint64_t begin = geometry.in_cluster(offset);
  const std::uint32_t written_units = geometry.units_in(begin, begin + data.size());
  const L2Entry old = TRY(entry_at(table, index));
  const bool moves = !TRY(owns(table, index, old));
  std::uint64_t at = begin;
  std::vector<std::byte> whole;
  if (moves && old.has_bytes()) {
    whole.resize(geometry.cluster());
    TRY(read_disk(image_, offset - begin, whole));
    std::memcpy(whole.data() + begin, data.data(), data.size());
    data = whole;
    at = 0;
  }
  const ClusterRun place = moves ? TRY(allocator_.allocate(1)) : ClusterRun{.offset = old.host, .clusters = 1};
  data_written_ = true;
  if (auto written = image_.write(place.offset + at, data); !written.ok()) {
    if (moves) TRY(give_back(place, 0));
    return std::move(written).error();
  }
  if (moves) TRY(release(old));
  L2Entry now = own_cluster(place.offset, written_units | (old.compressed ? geometry.all_units() : old.data));
  now.zero = old.zero & ~written_units;
  set_entry(table, index, now);
  return {};
}

// From here on these units of the cluster at `offset` have no bytes: they read as zeros, or as the backing does. A
// cluster that no unit has bytes in goes.
Status Writer::clear_units(CachedTable& table, std::uint64_t index, std::uint64_t offset, std::uint32_t units,
                           bool zeros) {
  const Geometry& geometry = image_.geometry();
  L2Entry old = TRY(entry_at(table, index));
  if (zeros && (old.zero & units) == units) return {};
  if (old.compressed && units != geometry.all_units()) {
    // A write of what is there already makes a plain cluster of it.
    std::vector<std::byte> first(geometry.unit());
    TRY(read_disk(image_, offset, first));
    TRY(write_within(table, index, offset, first));
    old = TRY(entry_at(table, index));
  }
  L2Entry now;
  now.data = old.data & ~units;
  now.zero = zeros ? old.zero | units : old.zero & ~units;
  if (now.data != 0) {
    now.host = old.host;
    now.copied = old.copied;
  } else {
    TRY(release(old));
  }
  set_entry(table, index, now);
  return {};
}

// Clusters that nothing came to point at, in memory or on disk.
Status Writer::give_back(const ClusterRun& run, std::uint64_t from) {
  const std::uint64_t first = run.offset >> image_.geometry().cluster_bits;
  for (std::uint64_t i = from; i < run.clusters; ++i) {
    allocator_.lowered(first + i, TRY(refcounts_.lower(first + i)));
  }
  return {};
}

Status Writer::write_zeros(std::uint64_t offset, std::uint64_t length) {
  TRY(prepare());
  const Geometry& geometry = image_.geometry();
  if (image_.header.version < 3) {
    // Version 2 cannot say "zeros": whatever backing the image has or will be given is hidden by data.
    const std::vector<std::byte> zeros(
        std::min<std::uint64_t>(length, std::max<std::uint64_t>(kZeroChunk, geometry.cluster())));
    for (std::uint64_t done = 0; done < length;) {
      const std::uint64_t chunk = std::min<std::uint64_t>(zeros.size(), length - done);
      TRY(write(offset + done, Bytes(zeros).first(chunk)));
      done += chunk;
    }
    return {};
  }
  const std::uint64_t end = offset + length;
  for (std::uint64_t at = offset; at < end;) {
    auto table = table_for(at / geometry.l2_span());
    if (!table.ok()) return guarded(std::move(table).error());
    const std::uint64_t span_end = std::min(end, (at / geometry.l2_span() + 1) * geometry.l2_span());
    while (at < span_end) {
      const std::uint64_t index = at % geometry.l2_span() >> geometry.cluster_bits;
      const std::uint64_t begin = geometry.in_cluster(at);
      const std::uint64_t part = std::min(geometry.cluster() - begin, span_end - at);
      TRY(guarded(clear_units(**table, index, at - begin, geometry.units_in(begin, begin + part), true)));
      at += part;
    }
    TRY(relieve());
  }
  return {};
}

Status Writer::preallocate(const FreshClusters& fresh, ProgressSink& progress, const CancelToken& cancel) {
  TRY(prepare());
  const Geometry& geometry = image_.geometry();
  allocator_.skip_to_file_end();
  for (std::uint64_t at = fresh.begin; at < fresh.end;) {
    TRY(cancel.check());
    progress.report({.phase = "metadata",
                     .done = at - fresh.begin,
                     .total = fresh.end - fresh.begin,
                     .unit = ProgressUnit::kClusters});
    auto table = table_for(at / geometry.l2_entries());
    if (!table.ok()) return guarded(std::move(table).error());
    const std::uint64_t index = at % geometry.l2_entries();
    const std::uint64_t most = std::min(fresh.end - at, geometry.l2_entries() - index);
    const std::uint64_t without = TRY(entries_without_cluster(**table, index, most));
    if (without == 0) {
      ++at;
      continue;
    }
    auto run = allocator_.allocate(without);
    if (!run.ok()) return guarded(std::move(run).error());
    const std::uint64_t run_end = run->offset + (run->clusters << geometry.cluster_bits);
    // The file grows with its clusters, so that each of them is inside it whenever a pointer is flushed.
    TRY(guarded(image_.file.truncate(std::max(image_.file_end, run_end))));
    image_.file_end = std::max(image_.file_end, run_end);
    for (std::uint64_t i = 0; i < run->clusters; ++i) {
      set_entry(**table, index + i, own_cluster(run->offset + (i << geometry.cluster_bits), fresh.data));
    }
    at += run->clusters;
    TRY(relieve());
  }
  return flush();
}

Result<std::uint64_t> Writer::entries_without_cluster(const CachedTable& table, std::uint64_t first,
                                                      std::uint64_t most) const {
  std::uint64_t count = 0;
  while (count < most && TRY(entry_at(table, first + count)).host == 0) ++count;
  return count;
}

Result<L2Entry> Writer::entry_at(const CachedTable& table, std::uint64_t index) const {
  const L2Entry entry = decode_l2(raw_entry(table, index), image_.geometry(), image_.header.version);
  TRY(check_entry(image_, entry, entry_offset(table, index)));
  return entry;
}

Result<bool> Writer::owns(const CachedTable& table, std::uint64_t index, const L2Entry& entry) {
  if (entry.host == 0 || entry.compressed) return false;
  const std::uint64_t count = TRY(refcounts_.get(entry.host >> image_.geometry().cluster_bits));
  if (count == 0) return image_.corrupt("a cluster in use has no reference count", entry.host);
  if (count != 1 && entry.copied) {
    return image_.corrupt("an L2 entry claims for itself a cluster that others use", entry_offset(table, index));
  }
  if (allocator_.found_references(entry.host >> image_.geometry().cluster_bits) > count) {
    return image_.corrupt("a cluster is used more often than it is counted", entry.host);
  }
  return count == 1;
}

Status Writer::release(const L2Entry& entry) {
  if (entry.host == 0) return {};
  const Geometry& geometry = image_.geometry();
  const std::uint64_t bytes = entry.compressed ? entry.bytes : geometry.cluster();
  const std::uint64_t first = entry.host >> geometry.cluster_bits;
  const std::uint64_t last = (entry.host + bytes - 1) >> geometry.cluster_bits;
  for (std::uint64_t cluster = first; cluster <= last; ++cluster) {
    if (TRY(refcounts_.get(cluster)) == 0) {
      return image_.corrupt("a cluster in use has no reference count", cluster << geometry.cluster_bits);
    }
    released_.push_back(cluster);
  }
  return {};
}

void Writer::set_raw_entry(CachedTable& table, std::uint64_t index, const RawL2Entry& raw) {
  const Geometry& geometry = image_.geometry();
  if (raw_entry(table, index) == raw) return;
  store_l2_entry(table.bytes(), index, raw, geometry);
  if (!table.dirty()) dirty_tables_.push_back(table.shared_from_this());
  table.touch(index * geometry.l2_entry_bytes(), (index + 1) * geometry.l2_entry_bytes());
}

// The L2 table to change: the image's own, a new one, or a copy of one that a snapshot uses too.
Result<std::shared_ptr<CachedTable>> Writer::table_for(std::uint64_t l1_index) {
  const Geometry& geometry = image_.geometry();
  if (l1_index >= image_.l1.size()) return image_.corrupt("the L1 table is too small", image_.header.l1_offset);
  const std::uint64_t raw = image_.l1[l1_index];
  std::shared_ptr<CachedTable> shared;
  if ((raw & kOffsetMask) != 0) {
    auto table = TRY(load_l2(image_, l1_index));
    const std::uint64_t count = TRY(refcounts_.get(table->offset() >> geometry.cluster_bits));
    if (count == 0) return image_.corrupt("an L2 table in use has no reference count", table->offset());
    if (count == 1) return table;
    if ((raw & kEntryCopied) != 0) {
      return image_.corrupt("an L1 entry claims for itself a table that others use",
                            image_.header.l1_offset + l1_index * 8);
    }
    shared = std::move(table);
  }
  const ClusterRun run = TRY(allocator_.allocate(1));
  auto table = image_.l2_tables.create(run.offset, shared.get());
  image_.metadata.insert(run.offset);
  // It will be written there; until then, what the L1 table in memory points at counts as inside the file.
  image_.file_end = std::max(image_.file_end, run.offset + geometry.cluster());
  dirty_tables_.push_back(table);
  if (shared) {
    // From here on it is the snapshots' alone, and what only they refer to is not in the map.
    image_.metadata.remove(shared->offset());
    released_.push_back(shared->offset() >> geometry.cluster_bits);
  }
  image_.l1[l1_index] = run.offset | kEntryCopied;
  dirty_l1_.insert(l1_index);
  return table;
}

// Keeps what waits in memory bounded.
Status Writer::relieve() {
  const std::size_t tables = dirty_tables_.size() + refcounts_.dirty_blocks();
  if (tables * image_.geometry().cluster() <= kMaxDirtyBytes && released_.size() <= kMaxReleased) return {};
  return flush();
}

Status Writer::prepare_header() {
  if (failed_) return *failed_;
  if (image_.header.has(Incompatible::kCorrupt)) {
    return image_.corrupt("the image is marked corrupt", at::kIncompatible).advise("run check with repair");
  }
  if (image_.header.autoclear != 0) {
    // Each bit vouches for something that a writer keeps up to date. This one knows none of them.
    constexpr std::array<std::byte, 8> kNone{};
    TRY(image_.write(at::kAutoclear, kNone));
    TRY(image_.file.sync());
    image_.header.autoclear = 0;
  }
  return {};
}

Status Writer::prepare() {
  NoProgress silent;
  const CancelToken never;
  return prepare(silent, never);
}

Status Writer::prepare(ProgressSink& progress, const CancelToken& cancel) {
  if (prepared_ && !failed_) return {};
  if (!image_.metadata_damage.empty() && !failed_) {
    return guarded(
        image_.corrupt("the image cannot be written: " + image_.metadata_damage, 0).advise("run check with repair"));
  }
  if (!failed_) TRY(survey(progress, cancel));
  TRY(prepare_header());
  kept_end_ = image_.file_end;
  prepared_ = true;
  return {};
}

// A stored count of 0 says that a cluster is free. Where that is wrong, believing it would overwrite a guest's bytes.
Status Writer::survey(ProgressSink& progress, const CancelToken& cancel) {
  CheckReport found;
  auto survey = survey_references(image_, found, progress, cancel);
  const bool too_large = !survey.ok() && survey.error().code == ErrorCode::kOutOfMemory;
  if (!survey.ok() && !too_large) return std::move(survey).error();
  // What could not be followed may use any cluster inside the file.
  if (too_large || !survey->complete || survey->refcounts_damaged) allocator_.skip_to_file_end();
  if (!too_large) allocator_.set_in_use(std::move(survey->counts));
  // On a block device the image ends where the last of it does, and grows from there.
  const auto end = allocator_.found_end();
  if (end && image_.file.has_fixed_size()) image_.file_end = *end << image_.geometry().cluster_bits;
  return {};
}

void Writer::abandon() {
  if (!prepared_) return;
  if (!failed_) failed_ = Error(ErrorCode::kInternal, "what was written to the image was given up");
  const auto size = image_.file.size();
  if (size.ok() && size.value() > kept_end_) (void)image_.file.truncate(kept_end_);
}

// Damage ends all writing: what is in memory rests on tables that cannot be trusted. Anything else (no space, say)
// leaves memory as if the write had not been asked for.
Status Writer::guarded(Status outcome) {
  if (!outcome.ok() && outcome.error().code == ErrorCode::kImageCorrupt && !failed_) {
    mark_corrupt();
    failed_ = outcome.error();
  }
  return outcome;
}

// Best effort: the error that led here is the one to report. Version 2 has no such mark.
void Writer::mark_corrupt() {
  if (image_.header.version < 3 || image_.header.has(Incompatible::kCorrupt)) return;
  image_.header.incompatible |= static_cast<std::uint64_t>(Incompatible::kCorrupt);
  std::array<std::byte, 8> raw;
  store_be64(raw.data(), image_.header.incompatible);
  if (image_.write(at::kIncompatible, raw).ok()) (void)image_.file.sync();
}

}  // namespace sluicebox::image::qcow2
