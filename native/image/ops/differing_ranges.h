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

// Walks the disk in order and yields the ranges, in whole allocation units of the overlay, that the overlay does not
// cover and whose bytes may differ between the two chains: not where both are zero, nor where both show the same layer.
class DifferingRanges {
 public:
  // Borrows everything. The overlay may be written behind the walk, not ahead of it.
  DifferingRanges(Block& overlay, const std::vector<Layer>& old_chain, const std::vector<Layer>& new_chain,
                  const CancelToken& cancel);

  // Nothing at the end. Ranges are ascending, apart, and at most 64 MiB long.
  Result<std::optional<DiskRange>> next();

 private:
  Result<bool> enter_unallocated_run();
  bool same(const ChainView::Extent& before, const ChainView::Extent& after) const;

  Block& overlay_;
  ChainView old_, new_;
  std::size_t old_tail_, new_tail_;  // the layer from which on both chains are the same files
  const CancelToken& cancel_;
  std::uint64_t position_ = 0;
  std::uint64_t run_end_ = 0;  // of the overlay's unallocated run around position_
};

std::vector<Block*> blocks_of(const std::vector<Layer>& layers);

}  // namespace sluicebox::image
