#include "image/formats/vhdx/check.h"

#include <algorithm>

#include "base/checked.h"
#include "image/formats/unnamed_blocks.h"

namespace sluicebox::image::vhdx {

namespace {

class Checker {
 public:
  Checker(ImageState& image, Repair repair, Writer* writer, ProgressSink& progress, const CancelToken& cancel)
      : image_(image), repair_(repair), writer_(writer), progress_(progress), cancel_(cancel) {}

  Result<CheckReport> run() {
    // Whoever repairs replays the log first, and looks at the file then.
    const bool may_write = repair_ != Repair::kNone && image_.damaged.empty();
    if (may_write && image_.has_log()) TRY(writer_->begin(Writer::Change::kFile));
    file_bytes_ = TRY(image_.file.size());
    report_.total_clusters = image_.shape.blocks;
    TRY(walk_table());
    find_leaks();
    if (may_write && tail_ > 0) {
      TRY(writer_->cut(used_end_));
      report_.leaks_fixed += tail_;
    }
    TRY(check_region_tables(may_write));
    report_.image_end_offset = used_end_;
    return std::move(report_);
  }

 private:
  Status walk_table() {
    std::optional<std::uint64_t> expected;
    for (std::uint64_t i = 0; i < image_.table.size(); ++i) {
      if (i % 65536 == 0) {
        TRY(cancel_.check());
        progress_.report({"check", i, image_.table.size(), ProgressUnit::kClusters});
      }
      const bool bitmap = image_.shape.is_bitmap(i);
      if (bitmap && !image_.shape.has_parent) continue;
      const BlockState state = state_of(image_.table[i]);
      const bool placed = state == BlockState::kPresent || state == BlockState::kPartlyPresent;
      const std::uint64_t begin = offset_of(image_.table[i]);
      const std::uint64_t length = bitmap ? kBitmapBlockBytes : image_.metadata.block_size;
      if (placed && !bitmap) {
        ++report_.allocated_clusters;
        if (expected && begin != *expected) ++report_.fragmented_clusters;
        expected = begin + length;
      }
      if (image_.is_damaged(i)) note_damage(i, placed, begin, length);
      if (placed && begin < file_bytes_) used_.push_back({begin, begin + length});
    }
    return {};
  }

  void note_damage(std::uint64_t entry, bool placed, std::uint64_t begin, std::uint64_t length) {
    ++report_.corruptions;
    const bool past = begin > file_bytes_ || length > file_bytes_ - begin;
    const bool partly = state_of(image_.table[entry]) == BlockState::kPartlyPresent && image_.shape.has_parent;
    const bool no_bitmap =
        partly && state_of(image_.table[image_.shape.bitmap_of_entry(entry)]) != BlockState::kPresent;
    const char* kind = !placed ? "invalid-state" : no_bitmap ? "bitmap-missing" : past ? "offset-past-end" : "overlap";
    report_.note(kind, image_.regions.table.offset + entry * 8,
                 "entry " + std::to_string(entry) + " of the table of blocks says " +
                     std::to_string(image_.table[entry] & 7) + " at " + std::to_string(begin));
  }

  // What could hold a block, and holds nothing that anybody points at. In front of the first block others leave room,
  // and a fixed image has it for the blocks that it will have.
  void find_leaks() {
    std::uint64_t first_block = ~std::uint64_t{0};
    for (const TakenRange& range : used_) first_block = std::min(first_block, range.begin);
    std::vector<TakenRange> ranges = image_.taken;
    ranges.insert(ranges.end(), used_.begin(), used_.end());
    std::ranges::sort(ranges, {}, &TakenRange::begin);
    for (const TakenRange& range : ranges) {
      if (used_end_ > first_block && range.begin > used_end_) count_gap(used_end_, range.begin);
      used_end_ = std::max(used_end_, range.end);
    }
    used_end_ = checked_align_up(used_end_, kMiB).value_or(used_end_);
    if (used_end_ > first_block && file_bytes_ > used_end_) tail_ = count_gap(used_end_, file_bytes_);
  }

  std::uint64_t count_gap(std::uint64_t begin, std::uint64_t end) {
    return image_.metadata.fixed ? 0 : count_unnamed_blocks(report_, begin, end, image_.metadata.block_size);
  }

  Status check_region_tables(bool may_write) {
    std::uint64_t bad = 0;
    for (std::size_t copy = 0; copy < 2; ++copy) {
      if (image_.region_table_sound[copy]) continue;
      ++bad;
      report_.note("region-table", kRegionTableOffsets[copy], "one of the two region tables is damaged");
    }
    report_.corruptions += bad;
    if (bad == 0 || !may_write || repair_ != Repair::kAll) return {};
    TRY(writer_->mend_region_tables());
    report_.corruptions_fixed += bad;
    return {};
  }

  ImageState& image_;
  const Repair repair_;
  Writer* writer_;
  ProgressSink& progress_;
  const CancelToken& cancel_;
  CheckReport report_;
  std::vector<TakenRange> used_;
  std::uint64_t file_bytes_ = 0;
  std::uint64_t used_end_ = 0;
  std::uint64_t tail_ = 0;  // blocks that would fit behind all that is used
};

}  // namespace

Result<CheckReport> check_vhdx(ImageState& image, Repair repair, Writer* writer, ProgressSink& progress,
                               const CancelToken& cancel) {
  return Checker(image, repair, writer, progress, cancel).run();
}

}  // namespace sluicebox::image::vhdx
