// differing_ranges.h: where moving an overlay from one backing chain to another could change what the guest sees.
// Knows: block status of the layers. Reads no data, so it costs metadata only, and over a shared tail nothing else.
// Threads: one operation's thread.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/cancel.h"
#include "base/result.h"
#include "image/chain.h"

namespace sluicebox::image {

struct DiskRange {
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
};

// A value: a copy goes on from where the original stood. Walks the disk in order and yields the ranges, in whole
// allocation units of the overlay, that the overlay does not cover and whose bytes may differ between the two chains:
// not where both are zero, nor where both show the same layer.
class DifferingRanges {
 public:
  // Borrows everything. The overlay may be written behind the walk, not ahead of it.
  DifferingRanges(Block& overlay, const std::vector<Layer>& old_chain, const std::vector<Layer>& new_chain,
                  const CancelToken& cancel);

  // Nothing at the end. Ranges are ascending, apart, and at most 64 MiB long.
  Result<std::optional<DiskRange>> next();

 private:
  // One of the two chains: what it has above the files that both share, and all of it.
  struct Side {
    std::size_t own_layers;
    ChainView own, whole;
    bool shows_tail(const ChainView::Extent& extent) const { return extent.depth == own_layers; }
  };
  static Side make_side(const std::vector<Layer>& chain, std::size_t own_layers, std::uint64_t size);

  Result<bool> enter_unallocated_run();
  struct Step {
    bool same = false;
    std::uint64_t length = 0;
  };
  Result<Step> compare_status();

  Block& overlay_;
  Side old_, new_;
  const CancelToken& cancel_;
  std::uint64_t position_ = 0;
  std::uint64_t run_end_ = 0;  // of the overlay's unallocated run around position_
};

std::vector<Block*> blocks_of(const std::vector<Layer>& layers);

}  // namespace sluicebox::image
