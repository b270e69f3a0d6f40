#include "image/formats/qcow2/survey.h"

#include <algorithm>
#include <string>

#include "image/formats/qcow2/bitmap_directory.h"
#include "image/formats/qcow2/l2_entry.h"

namespace sluicebox::image::qcow2 {

namespace {

class Surveyor {
 public:
  Surveyor(ImageState& image, CheckReport& report, ProgressSink& progress, const CancelToken& cancel)
      : image_(image), geometry_(image.geometry()), report_(report), progress_(progress), cancel_(cancel) {}

  Result<Survey> run() {
    TRY(count_fixed_tables());
    TRY(count_refcount_structure());
    TRY(count_bitmaps());
    TRY(collect_l1(image_.l1, true, image_.header.l1_offset));
    TRY(collect_snapshots());
    TRY(count_l2_tables());
    judge_blocks();
    return std::move(survey_);
  }

 private:
  void damaged(const char* kind, std::uint64_t offset, std::string message) {
    report_corruption(report_, kind, offset, std::move(message));
    survey_.complete = false;
  }

  Status count(std::uint64_t offset, std::uint64_t bytes, std::uint32_t times) {
    if (bytes == 0) return {};
    const std::uint64_t last = (offset + bytes - 1) >> geometry_.cluster_bits;
    for (std::uint64_t cluster = offset >> geometry_.cluster_bits; cluster <= last; ++cluster) {
      if (survey_.counts.add(cluster, times)) continue;
      return Error(ErrorCode::kOutOfMemory, "the image's clusters are too scattered to count").on(image_.file.path());
    }
    return {};
  }

  Status count_fixed_tables() {
    const Header& header = image_.header;
    TRY(count(0, geometry_.cluster(), 1));
    TRY(count(header.l1_offset, std::uint64_t{header.l1_size} * 8, 1));
    TRY(count(header.refcount_table_offset, std::uint64_t{header.refcount_table_clusters} << geometry_.cluster_bits,
              1));
    if (!image_.snapshots.empty()) TRY(count(header.snapshots_offset, snapshot_table_bytes(image_.snapshots), 1));
    return {};
  }

  // Blocks are counted, but what they say is not read here. Damage to them loses nothing: it can all be made anew.
  // Whether a block's cluster is its own is known when everything was counted.
  Status count_refcount_structure() {
    survey_.usable_blocks.resize(image_.refcount_table.size());
    for (std::uint64_t i = 0; i < image_.refcount_table.size(); ++i) {
      const std::uint64_t offset = image_.refcount_table[i];
      if (offset == 0) continue;
      const char* why = nullptr;
      if (!geometry_.valid_cluster_offset(offset)) {
        why = "is unaligned or out of range";
      } else if (!image_.begins_in_file(offset)) {
        why = "points past the end of the file";
      }
      if (why != nullptr) {
        unusable_block(i, why);
        continue;
      }
      survey_.usable_blocks[i] = true;
      TRY(count(offset, geometry_.cluster(), 1));
    }
    return {};
  }

  void unusable_block(std::uint64_t index, const char* why) {
    report_corruption(report_, "refcount-table-entry", image_.header.refcount_table_offset + index * 8,
                      std::string("refcount table entry ") + why);
    survey_.refcounts_damaged = true;
  }

  // A table entry may name anything: a guest's cluster, a snapshot's table, another block. Such a block holds no
  // counts.
  void judge_blocks() {
    std::vector<std::uint64_t> shared;
    for (std::uint64_t i = 0; i < survey_.usable_blocks.size(); ++i) {
      if (!survey_.usable_blocks[i]) continue;
      const std::uint64_t offset = image_.refcount_table[i];
      if (survey_.counts.get(offset >> geometry_.cluster_bits) != 1 || image_.shared_tables.contains(offset)) {
        shared.push_back(i);
      }
    }
    for (const std::uint64_t i : shared) {
      unusable_block(i, "points at a cluster that something else uses");
      survey_.usable_blocks[i] = false;
      survey_.counts.subtract_one(image_.refcount_table[i] >> geometry_.cluster_bits);
    }
  }

  Status count_bitmaps() {
    const auto ranges = read_bitmap_ranges(image_);
    if (!ranges.ok()) {
      if (ranges.error().code != ErrorCode::kImageCorrupt) return ranges.error();
      damaged("bitmap-directory", ranges.error().offset.value_or(0), ranges.error().message);
      return {};
    }
    for (const HostRange& range : ranges.value()) TRY(count(range.offset, range.bytes, 1));
    return {};
  }

  Status collect_l1(const std::vector<std::uint64_t>& l1, bool active, std::uint64_t table_at) {
    for (std::uint64_t i = 0; i < l1.size(); ++i) {
      const std::uint64_t entry_at = table_at + i * 8;
      if ((l1[i] & kL1Reserved) != 0) {
        report_corruption(report_, "reserved-bits", entry_at, "an L1 entry has reserved bits set");
      }
      const std::uint64_t offset = l1[i] & kOffsetMask;
      if (offset == 0) continue;
      if (!geometry_.valid_cluster_offset(offset)) {
        damaged("offset-unaligned", entry_at, "an L1 entry is unaligned");
        continue;
      }
      if (!image_.begins_in_file(offset)) {
        damaged("offset-past-end", entry_at, "an L1 entry points past the end of the file");
        continue;
      }
      SurveyedL2& table = survey_.l2_tables[offset];
      const bool strange = !table.active && !active && image_.metadata.first_in(offset, 1).has_value();
      if ((active && image_.shared_tables.contains(offset)) || strange) {
        damaged("table-shared", entry_at, "an L1 entry points at a cluster that another table uses");
        if (table.uses == 0) survey_.l2_tables.erase(offset);
        TRY(count(offset, geometry_.cluster(), 1));
        continue;
      }
      if (active) {
        table.active = true;
        table.l1_index = i;
      }
      ++table.uses;
    }
    return {};
  }

  // Snapshots' own L1 tables never overlap: those that do are damage, and are not followed, so that the work is bounded
  // by the file.
  Status collect_snapshots() {
    std::vector<const Snapshot*> sorted;
    for (const Snapshot& each : image_.snapshots) {
      if (each.l1_entries != 0) sorted.push_back(&each);
    }
    std::sort(sorted.begin(), sorted.end(),
              [](const Snapshot* a, const Snapshot* b) { return a->l1_offset < b->l1_offset; });
    std::uint64_t end = 0;
    for (const Snapshot* each : sorted) {
      TRY(cancel_.check());
      const std::uint64_t bytes = std::uint64_t{each->l1_entries} * 8;
      if (!geometry_.valid_cluster_offset(each->l1_offset) || !image_.in_file(each->l1_offset, bytes)) {
        damaged("snapshot-l1", each->l1_offset, "a snapshot's L1 table is unaligned or outside the file");
        continue;
      }
      // Before anything is counted: those that overlap may be many, and each long.
      if (each->l1_offset < end || image_.shared_tables.contains(each->l1_offset)) {
        damaged("table-shared", each->l1_offset, "a snapshot's L1 table overlaps another table");
        end = std::max(end, each->l1_offset + bytes);
        continue;
      }
      TRY(count(each->l1_offset, bytes, 1));
      end = each->l1_offset + bytes;
      const auto l1 = TRY(read_table(image_, each->l1_offset, each->l1_entries, "a snapshot's L1 table", cancel_));
      TRY(collect_l1(l1, false, each->l1_offset));
    }
    return {};
  }

  Status count_l2_tables() {
    std::vector<std::byte> raw(geometry_.cluster());
    std::uint64_t done = 0;
    for (const auto& [offset, table] : survey_.l2_tables) {
      TRY(cancel_.check());
      progress_.report({"check", done++, survey_.l2_tables.size(), ProgressUnit::kItems});
      TRY(count(offset, geometry_.cluster(), table.uses));
      TRY(read_padded(image_.file, offset, raw));
      if (!all_zero(raw)) TRY(count_l2_entries(raw, offset, table));
    }
    return {};
  }

  Status count_l2_entries(Bytes raw, std::uint64_t table_at, const SurveyedL2& table) {
    std::uint64_t contiguous = 0;
    for (std::uint64_t i = 0; i < geometry_.l2_entries(); ++i) {
      const RawL2Entry value = load_l2_entry(raw.data(), i, geometry_);
      if (value.empty()) continue;
      const std::uint64_t entry_at = table_at + i * geometry_.l2_entry_bytes();
      const L2Entry entry = decode_l2(value, geometry_, image_.header.version);
      if (table.active && entry.host != 0) {
        ++report_.allocated_clusters;
        if (entry.compressed) ++report_.compressed_clusters;
        if (entry.compressed || (contiguous != 0 && entry.host != contiguous)) ++report_.fragmented_clusters;
        if (!entry.compressed) contiguous = entry.host + geometry_.cluster();
      }
      TRY(count_l2_entry(value, entry, entry_at, table.uses));
    }
    return {};
  }

  Status count_l2_entry(const RawL2Entry& value, const L2Entry& entry, std::uint64_t entry_at, std::uint32_t uses) {
    if (entry.lost) {
      damaged("offset-unaligned", entry_at, std::string("an L2 entry has ") + entry.damage);
      return {};
    }
    // Nobody can say what it reads as, but what it uses is known.
    if (entry.damage != nullptr) {
      report_corruption(report_, "subcluster-bits", entry_at, std::string("an L2 entry has ") + entry.damage);
    }
    const std::uint64_t reserved = geometry_.extended_l2 ? kExtendedL2Reserved : kL2Reserved;
    if (!entry.compressed && (value.descriptor & reserved) != 0) {
      report_corruption(report_, "reserved-bits", entry_at, "an L2 entry has reserved bits set");
    }
    if (entry.host == 0) return {};
    if (!image_.begins_in_file(entry.host)) {
      damaged("offset-past-end", entry_at, "an L2 entry points past the end of the file");
      return {};
    }
    const std::uint64_t bytes = entry.compressed ? entry.bytes : geometry_.cluster();
    if (touches_metadata(entry.host, std::min(bytes, image_.file_end - entry.host))) {
      report_corruption(report_, "data-over-metadata", entry_at, "an L2 entry points at metadata");
      survey_.data_over_metadata = true;
    }
    return count(entry.host, bytes, uses);
  }

  // Guests' clusters lie in long runs: what is free of metadata is looked for once a run.
  bool touches_metadata(std::uint64_t offset, std::uint64_t bytes) {
    if (offset >= free_begin_ && offset + bytes <= free_end_) return false;
    const auto next = image_.metadata.first_in(offset, image_.file_end - offset);
    free_begin_ = offset;
    free_end_ = next.value_or(image_.file_end);
    return next && *next < offset + bytes;
  }

  ImageState& image_;
  const Geometry geometry_;
  CheckReport& report_;
  ProgressSink& progress_;
  const CancelToken& cancel_;
  Survey survey_;
  std::uint64_t free_begin_ = 0, free_end_ = 0;
};

}  // namespace

void report_corruption(CheckReport& report, const char* kind, std::uint64_t offset, std::string message) {
  ++report.corruptions;
  report.note(kind, offset, std::move(message));
}

void report_leak(CheckReport& report, std::uint64_t offset, std::string message) {
  ++report.leaks;
  report.note("leaked-cluster", offset, std::move(message));
}

Result<Survey> survey_references(ImageState& image, CheckReport& report, ProgressSink& progress,
                                 const CancelToken& cancel) {
  return Surveyor(image, report, progress, cancel).run();
}

}  // namespace sluicebox::image::qcow2
