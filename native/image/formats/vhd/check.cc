#include "image/formats/vhd/check.h"

#include <algorithm>

#include "base/checked.h"
#include "image/formats/unnamed_blocks.h"

namespace sluicebox::image::vhd {

namespace {

class DynamicChecker {
 public:
  DynamicChecker(ImageState& image, Repair repair, Writer* writer, ProgressSink& progress, const CancelToken& cancel)
      : image_(image), repair_(repair), writer_(writer), progress_(progress), cancel_(cancel) {}

  Result<CheckReport> run() {
    report_.total_clusters = image_.table.size();
    TRY(walk_table());
    find_leaks();
    TRY(check_footers());
    report_.image_end_offset = used_end_;
    return std::move(report_);
  }

 private:
  Status walk_table() {
    std::optional<std::uint64_t> expected;
    for (std::uint64_t block = 0; block < image_.table.size(); ++block) {
      if (block % 65536 == 0) {
        TRY(cancel_.check());
        progress_.report({"check", block, image_.table.size(), ProgressUnit::kClusters});
      }
      if (image_.table[block] == kAbsentBlock) continue;
      ++report_.allocated_clusters;
      const std::uint64_t begin = std::uint64_t{image_.table[block]} * kSectorBytes;
      if (expected && begin != *expected) ++report_.fragmented_clusters;
      expected = begin + image_.header.stride();
      if (image_.is_damaged(block)) {
        ++report_.corruptions;
        report_.note(*expected > image_.data_end() ? "offset-past-end" : "overlap",
                     image_.header.table_offset + block * 4,
                     "block " + std::to_string(block) + " is said to lie at " + std::to_string(begin));
      }
      if (begin < image_.data_end()) used_.push_back({begin, *expected});
    }
    return {};
  }

  // What could hold a block, and holds nothing that anybody points at.
  void find_leaks() {
    std::vector<TakenRange> ranges = image_.taken;
    ranges.insert(ranges.end(), used_.begin(), used_.end());
    std::ranges::sort(ranges, {}, &TakenRange::begin);
    for (const TakenRange& range : ranges) {
      if (range.begin > used_end_) count_unnamed_blocks(report_, used_end_, range.begin, image_.header.stride());
      used_end_ = std::max(used_end_, range.end);
    }
    used_end_ = checked_align_up(used_end_, kSectorBytes).value_or(used_end_);
    if (image_.data_end() > used_end_)
      tail_ = count_unnamed_blocks(report_, used_end_, image_.data_end(), image_.header.stride());
  }

  // The copy in front is what others read, so without it the image is damaged. The footer at the end goes astray when
  // somebody was stopped while the file grew: that costs a sector.
  Status check_footers() {
    if (!image_.ends.front) {
      ++report_.corruptions;
      report_.note("footer-copy", 0, "the copy of the footer in front is damaged");
    }
    if (!image_.ends.end) {
      ++report_.leaks;
      report_.note("footer-missing", image_.ends.end_offset, "there is no footer at the end of the file");
    }
    // With damaged entries nobody knows what the end of the file is used for.
    const bool may_cut = repair_ != Repair::kNone && image_.damaged.empty();
    const bool front = image_.ends.front.has_value();
    const bool end = image_.ends.end.has_value();
    if (may_cut && (tail_ > 0 || !end) && (front || repair_ == Repair::kAll)) {
      if (!front) TRY(writer_->mend_footers());
      TRY(writer_->cut(used_end_));
      report_.leaks_fixed += tail_ + (end ? 0 : 1);
    }
    if (front || repair_ != Repair::kAll) return {};
    TRY(writer_->mend_footers());
    ++report_.corruptions_fixed;
    return {};
  }

  ImageState& image_;
  const Repair repair_;
  Writer* writer_;
  ProgressSink& progress_;
  const CancelToken& cancel_;
  CheckReport report_;
  std::vector<TakenRange> used_;
  std::uint64_t used_end_ = 0;
  std::uint64_t tail_ = 0;  // blocks that would fit behind all that is used
};

}  // namespace

Result<CheckReport> check_dynamic(ImageState& image, Repair repair, Writer* writer, ProgressSink& progress,
                                  const CancelToken& cancel) {
  return DynamicChecker(image, repair, writer, progress, cancel).run();
}

}  // namespace sluicebox::image::vhd
