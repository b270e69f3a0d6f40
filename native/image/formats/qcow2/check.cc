#include "image/formats/qcow2/check.h"

#include <algorithm>
#include <array>
#include <string>

#include "image/formats/qcow2/l2_entry.h"
#include "image/formats/qcow2/refcount_rebuild.h"
#include "image/formats/qcow2/refcount_width.h"
#include "image/formats/qcow2/refcounts.h"
#include "image/formats/qcow2/survey.h"

namespace sluicebox::image::qcow2 {

namespace {

class Checker {
 public:
  Checker(ImageState& image, Repair repair, ProgressSink& progress, const CancelToken& cancel)
      : image_(image), geometry_(image.geometry()), repair_(repair), progress_(progress), cancel_(cancel) {}

  // Writes nothing unless all that was found can be repaired.
  void require_whole() { whole_ = true; }

  Result<CheckReport> run() {
    report_.total_clusters = geometry_.clusters_for(image_.header.size);
    survey_ = TRY(survey_references(image_, report_, progress_, cancel_));
    if (whole_ && !can_settle_all()) {
      // A mark that says so, in case that nothing else was found to count.
      report_.corruptions = std::max<std::uint64_t>(report_.corruptions, 1);
      return std::move(report_);
    }
    TRY(compare_blocks());
    compare_uncounted();
    if (highest_) report_.image_end_offset = (*highest_ + 1) << geometry_.cluster_bits;
    TRY(settle_refcounts());
    if (survey_.complete) TRY(check_copied());
    if (repair_ == Repair::kAll) TRY(clear_marks());
    return std::move(report_);
  }

 private:
  bool may_lower() const { return repair_ != Repair::kNone && survey_.complete && !survey_.data_over_metadata; }
  bool may_raise() const { return repair_ == Repair::kAll; }
  void fixed_corruptions(std::uint64_t count) {
    report_.corruptions -= count;
    report_.corruptions_fixed += count;
  }
  void fixed_leaks(std::uint64_t count) {
    report_.leaks -= count;
    report_.leaks_fixed += count;
  }

  // Everything was found and belongs to one owner; all that is wrong are counts, or the blocks that keep them, and what
  // they ought to be can be stored.
  bool can_settle_all() const {
    if (!survey_.complete || survey_.data_over_metadata) return false;
    std::uint64_t bad_blocks = 0;
    for (std::size_t i = 0; i < image_.refcount_table.size(); ++i) {
      if (image_.refcount_table[i] != 0 && !survey_.usable_blocks[i]) ++bad_blocks;
    }
    if (report_.corruptions != bad_blocks) return false;
    for (const auto& [offset, table] : survey_.l2_tables) {
      const std::uint64_t entry_at = image_.header.l1_offset + table.l1_index * 8;
      if (table.active && (!is_only(entry_at, 1) || !is_only(offset, table.uses))) return false;
    }
    bool fits = true;
    bool counted = true;  // by a block that is there
    survey_.counts.for_each([&](std::uint64_t cluster, std::uint32_t count) {
      const std::uint64_t index = cluster / geometry_.refcounts_per_block();
      fits = fits && count <= geometry_.max_refcount();
      counted = counted && index < survey_.usable_blocks.size() && survey_.usable_blocks[index];
    });
    return fits && ((counted && bad_blocks == 0) || rebuild_would_fit(image_, survey_));
  }

  Status compare_blocks() {
    std::vector<std::byte> raw(geometry_.cluster());
    for (std::uint64_t index = 0; index < survey_.usable_blocks.size(); ++index) {
      if (!survey_.usable_blocks[index]) continue;
      TRY(cancel_.check());
      progress_.report({"compare", index, survey_.usable_blocks.size(), ProgressUnit::kItems});
      TRY(read_padded(image_.file, image_.refcount_table[index], raw));
      TRY(compare_block(index, raw));
    }
    return {};
  }

  // In place, and counts alone: whatever part of it a crash leaves done is right by itself.
  Status compare_block(std::uint64_t index, std::vector<std::byte>& raw) {
    const std::uint64_t first = index * geometry_.refcounts_per_block();
    const std::uint64_t file_clusters = geometry_.clusters_for(image_.file_end);
    std::uint64_t raised = 0;
    std::uint64_t lowered = 0;
    std::size_t begin = raw.size();
    std::size_t end = 0;
    for (std::uint64_t i = 0; i < geometry_.refcounts_per_block(); ++i) {
      const std::uint64_t stored = load_refcount(raw.data(), geometry_.refcount_order, i);
      const std::uint64_t counted = survey_.counts.get(first + i);
      if (stored == counted && counted == 0) continue;
      // Nobody loses space to a count past the end of the file: it is no leak, but is cleared along with others.
      const bool past_end = counted == 0 && first + i >= file_clusters;
      // As far as it is in use when this is over.
      if (!past_end && (counted != 0 || !may_lower())) note_end(first + i);
      if (stored == counted) continue;
      differing_ = true;
      const std::uint64_t offset = (first + i) << geometry_.cluster_bits;
      const std::string numbers = "refcount " + std::to_string(stored) + ", referred to " + std::to_string(counted) +
                                  (counted == 1 ? " time" : " times");
      if (stored > counted) {
        if (!past_end) report_leak(report_, offset, numbers);
        if (!may_lower()) continue;
        if (!past_end) ++lowered;
      } else {
        report_corruption(report_, "refcount-too-low", offset, numbers);
        if (!may_raise() || counted > geometry_.max_refcount()) continue;
        ++raised;
      }
      store_refcount(raw.data(), geometry_.refcount_order, i, counted);
      const std::size_t byte = (i << geometry_.refcount_order) / 8;
      begin = std::min(begin, byte / kSectorBytes * kSectorBytes);
      end = std::max(end, byte / kSectorBytes * kSectorBytes + kSectorBytes);
    }
    if (begin >= end) return {};
    written_ = true;
    TRY(image_.write(image_.refcount_table[index] + begin, Bytes(raw).subspan(begin, end - begin)));
    fixed_corruptions(raised);
    fixed_leaks(lowered);
    return {};
  }

  // Clusters in use for which no block exists.
  void compare_uncounted() {
    survey_.counts.for_each([&](std::uint64_t cluster, std::uint32_t counted) {
      note_end(cluster);
      const std::uint64_t index = cluster / geometry_.refcounts_per_block();
      if (index < survey_.usable_blocks.size() && survey_.usable_blocks[index]) return;
      report_corruption(report_, "refcount-too-low", cluster << geometry_.cluster_bits,
                        "refcount 0, referred to " + std::to_string(counted) + (counted == 1 ? " time" : " times"));
      ++uncounted_;
      differing_ = true;
      survey_.refcounts_damaged = true;
    });
  }

  // Lowering to what was counted is only right when everything was counted, and a rebuilt structure does lower.
  Status settle_refcounts() {
    if (survey_.refcounts_damaged && repair_ == Repair::kAll && survey_.complete) {
      std::uint64_t bad_entries = 0;
      for (std::size_t i = 0; i < image_.refcount_table.size(); ++i) {
        if (image_.refcount_table[i] != 0 && !survey_.usable_blocks[i]) ++bad_entries;
      }
      rebuilt_ = TRY(rebuild_refcounts(image_, survey_));
      if (rebuilt_) fixed_corruptions(bad_entries + uncounted_);
    }
    return written_ ? image_.file.sync() : ok_status();
  }

  // What is stored by now; 0 where nothing is.
  Result<std::uint64_t> stored_count(std::uint64_t cluster) {
    if (!differing_) return survey_.counts.get(cluster);
    const std::uint64_t index = cluster / geometry_.refcounts_per_block();
    if (!rebuilt_ && (index >= survey_.usable_blocks.size() || !survey_.usable_blocks[index])) return std::uint64_t{0};
    if (!stored_) stored_.emplace(image_);
    return stored_->get(cluster);
  }

  // COPIED says "the count is 1": the stored one, for that is what writers go by. Only the active tables' say matters.
  Status check_copied() {
    // Counts that were just lowered to 1 make their entries lack the flag: to repair leaks alone would leave damage.
    repairs_flags_ =
        repair_ == Repair::kAll || (repair_ == Repair::kLeaks && report_.corruptions == 0 && report_.leaks == 0);
    std::vector<std::byte> raw(geometry_.cluster());
    std::uint64_t fixed = 0;
    for (const auto& [offset, table] : survey_.l2_tables) {
      if (!table.active) continue;
      TRY(cancel_.check());
      const std::uint64_t entry_at = image_.header.l1_offset + table.l1_index * 8;
      fixed += TRY(check_flag(image_.l1[table.l1_index], offset, entry_at, is_only(entry_at, 1)));
      const bool own = is_only(offset, table.uses);
      TRY(read_padded(image_.file, offset, raw));
      if (all_zero(raw)) continue;
      for (std::uint64_t i = 0; i < geometry_.l2_entries(); ++i) {
        const RawL2Entry value = load_l2_entry(raw.data(), i, geometry_);
        const L2Entry entry = decode_l2(value, geometry_, image_.header.version);
        if (entry.host == 0 || entry.compressed || entry.damage != nullptr) continue;
        fixed += TRY(check_flag(value.descriptor, entry.host, offset + i * geometry_.l2_entry_bytes(), own));
      }
    }
    fixed_corruptions(fixed);
    return fixed == 0 ? ok_status() : image_.file.sync();
  }

  // The table around `at` is a table in the eyes of all that refer to its cluster, and no guest's bytes besides.
  bool is_only(std::uint64_t at, std::uint64_t tables) const {
    return survey_.counts.get(at >> geometry_.cluster_bits) == tables;
  }

  // Returns how many entries were repaired: 0 or 1.
  Result<std::uint64_t> check_flag(std::uint64_t value, std::uint64_t target, std::uint64_t entry_at, bool own_table) {
    const bool copied = (value & kEntryCopied) != 0;
    const bool once = TRY(stored_count(target >> geometry_.cluster_bits)) == 1;
    if (copied == once) return std::uint64_t{0};
    report_corruption(report_, "copied-flag", entry_at,
                      copied ? "an entry says that its cluster is used once, but it is used more often"
                             : "an entry does not say that its cluster is used once");
    const bool true_once = survey_.counts.get(target >> geometry_.cluster_bits) == 1;
    if (!repairs_flags_ || !own_table || (once && !true_once)) return std::uint64_t{0};
    std::array<std::byte, 8> raw;
    store_be64(raw.data(), value ^ kEntryCopied);
    TRY(image_.write(entry_at, raw));
    return std::uint64_t{1};
  }

  Status clear_marks() {
    if (image_.header.version < 3) return {};
    std::uint64_t bits = image_.header.incompatible;
    if (report_.corruptions == 0) {
      bits &= ~(static_cast<std::uint64_t>(Incompatible::kDirty) | static_cast<std::uint64_t>(Incompatible::kCorrupt));
    }
    if (bits == image_.header.incompatible) return {};
    std::array<std::byte, 8> raw;
    store_be64(raw.data(), bits);
    TRY(image_.write(at::kIncompatible, raw));
    TRY(image_.file.sync());
    image_.header.incompatible = bits;
    return {};
  }

  void note_end(std::uint64_t cluster) { highest_ = std::max(highest_.value_or(0), cluster); }

  ImageState& image_;
  const Geometry geometry_;
  const Repair repair_;
  ProgressSink& progress_;
  const CancelToken& cancel_;
  CheckReport report_;
  Survey survey_;
  std::uint64_t uncounted_ = 0;  // clusters in use without a block
  bool whole_ = false;
  bool differing_ = false;  // some stored count is not what was counted
  bool written_ = false, rebuilt_ = false, repairs_flags_ = false;
  std::optional<Refcounts> stored_;  // read after the counts were repaired
  std::optional<std::uint64_t> highest_;
};

}  // namespace

Result<CheckReport> check_qcow2(ImageState& image, Repair repair, ProgressSink& progress, const CancelToken& cancel) {
  return Checker(image, repair, progress, cancel).run();
}

Result<CheckReport> repair_whole(ImageState& image, ProgressSink& progress, const CancelToken& cancel) {
  Checker checker(image, Repair::kAll, progress, cancel);
  checker.require_whole();
  return checker.run();
}

}  // namespace sluicebox::image::qcow2
