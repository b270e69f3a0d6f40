#include "image/ops/compare.h"

#include <algorithm>

#include "base/checked.h"
#include "image/ops/compare_ahead.h"
#include "image/ops/image_chain.h"
#include "image/ops/map_walk.h"

namespace sluicebox::image {

namespace {

constexpr std::uint64_t kComparedSector = 512;
// One question's worth of metadata stays small, so that a cancel is heard in between.
constexpr std::uint64_t kLongestCompareQuestion = std::uint64_t{64} << 30;

struct ComparedChains {
  ImageChain first, second;
};

Result<ComparedChains> open_both(const std::string& first, const std::string& second, const CompareOptions& options,
                                 OperationContext& context) {
  const Access access = reading(options.shared);
  Layer one = TRY(open_layer(first, options.first_format, access, context));
  Layer two = TRY(open_layer(second, options.second_format, access, context));
  const std::vector<FileIdentity> named = {one.identity, two.identity};
  return ComparedChains{.first = TRY(open_image_chain(std::move(one), named, access, context)),
                        .second = TRY(open_image_chain(std::move(two), named, access, context))};
}

// Walks both disks and yields what has to be read of them: where not both say zero.
class RangesToCompare {
 public:
  RangesToCompare(const ComparedChains& chains, std::uint64_t size, OperationContext& context)
      : first_(chains.first.blocks(), size), second_(chains.second.blocks(), size), size_(size), context_(context) {}

  // In whole sectors, up to `end`; nothing when there is no more.
  Result<std::optional<DiskRange>> next(std::uint64_t end) {
    while (at_ < end) {
      TRY(context_.cancel.check());
      const ChainView::Extent one = TRY(first_.status(at_, std::min(end - at_, kLongestCompareQuestion)));
      const ChainView::Extent two = TRY(second_.status(at_, one.length));
      const std::uint64_t from = at_;
      // A file that ends inside a sector has data up to there.
      at_ = std::min(checked_align_up(from + two.length, kComparedSector).value_or(size_), size_);
      if (!one.zero || !two.zero) return std::optional(DiskRange{.offset = from, .length = at_ - from});
    }
    return std::optional<DiskRange>();
  }
  std::uint64_t position() const { return at_; }

 private:
  ChainView first_, second_;
  const std::uint64_t size_;
  OperationContext& context_;
  std::uint64_t at_ = 0;
};

// Where the first sector lies that one disk allocates and the other does not, or otherwise; `size` when there is none.
Result<std::uint64_t> first_other_allocation(const ComparedChains& chains, std::uint64_t size,
                                             OperationContext& context) {
  MapWalk first(chains.first.layers), second(chains.second.layers);
  for (std::uint64_t at = 0; at < size;) {
    TRY(context.cancel.check());
    const MapExtent one = TRY(first.at(at, std::min(size - at, kLongestCompareQuestion)));
    const MapExtent two = TRY(second.at(at, one.length));
    const bool same = one.present == two.present && one.zero == two.zero && one.data == two.data &&
                      one.offset.has_value() == two.offset.has_value();
    if (!same) return at;
    at = two.end();
  }
  return size;
}

std::uint64_t place_in_disk(const ComparedWindow& window, std::uint64_t unit) {
  std::uint64_t place = unit * kComparedSector;
  for (const DiskRange& range : window.ranges) {
    if (place < range.length) return range.offset + place;
    place -= range.length;
  }
  return 0;
}

class ImageComparer {
 public:
  // Compares what lies before `end`.
  ImageComparer(const ComparedChains& chains, std::uint64_t size, std::uint64_t end, OperationContext& context)
      : ranges_(chains, size, context),
        ahead_(ChainView(chains.first.blocks(), size), ChainView(chains.second.blocks(), size), kComparedSector, size),
        end_(end),
        context_(context) {}

  Result<std::optional<std::uint64_t>> first_difference() {
    while (true) {
      for (ComparedWindow* window = ahead_.vacant(); window != nullptr; window = ahead_.vacant()) {
        if (!TRY(feed(*window))) break;
        ahead_.begin();
      }
      TRY(context_.cancel.check());
      ComparedWindow* window = ahead_.front();
      if (window == nullptr) return std::optional<std::uint64_t>();
      if (!window->outcome.ok()) return window->outcome.error();
      const auto differs = std::ranges::find(window->differs, true);
      if (differs != window->differs.end()) {
        return std::optional(place_in_disk(*window, static_cast<std::uint64_t>(differs - window->differs.begin())));
      }
      const DiskRange last = window->ranges.back();
      ahead_.release();
      context_.progress.report({.phase = "compare", .done = last.offset + last.length, .total = end_});
    }
  }

 private:
  Result<bool> feed(ComparedWindow& window) {
    while (window.length < ahead_.window()) {
      if (part_.length == 0) {
        const auto range = TRY(ranges_.next(end_));
        if (!range) break;
        part_ = *range;
      }
      const std::uint64_t length = std::min(part_.length, ahead_.window() - window.length);
      window.ranges.push_back({.offset = part_.offset, .length = length});
      window.length += length;
      part_ = {.offset = part_.offset + length, .length = part_.length - length};
    }
    return window.length != 0;
  }

  RangesToCompare ranges_;
  CompareAhead ahead_;
  const std::uint64_t end_;
  OperationContext& context_;
  DiskRange part_;  // what is left of the range taken last
};

}  // namespace

Result<CompareResult> compare_images(const std::string& first, const std::string& second, const CompareOptions& options,
                                     OperationContext& context) {
  TRY(context.cancel.check());
  const ComparedChains chains = TRY(open_both(first, second, options, context));
  const std::uint64_t size = std::max(chains.first.size(), chains.second.size());
  CompareResult result;
  result.size_differs = chains.first.size() != chains.second.size();
  if (options.strict && result.size_differs) {
    result.identical = false;
    return result;
  }
  context.progress.report({.phase = "compare", .done = 0, .total = size});
  const std::uint64_t end = options.strict ? TRY(first_other_allocation(chains, size, context)) : size;
  result.first_difference = TRY(ImageComparer(chains, size, end, context).first_difference());
  if (!result.first_difference && end < size) {
    result.first_difference = end;
    result.allocation_differs = true;
  }
  result.identical = !result.first_difference;
  return result;
}

}  // namespace sluicebox::image
