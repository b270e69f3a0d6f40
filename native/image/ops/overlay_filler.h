// overlay_filler.h: compares two chains byte by byte and writes into the overlay what only the old one shows.
// Knows: the block interface, chain views. Does not know: which ranges matter, formats, headers.
// Threads: one operation's thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/cancel.h"
#include "base/result.h"
#include "image/aligned_buffer.h"
#include "image/block.h"
#include "image/chain.h"
#include "image/ops/differing_ranges.h"

namespace sluicebox::image {

struct FillCounts {
  std::uint64_t bytes_compared = 0;
  std::uint64_t clusters_compared = 0;
  std::uint64_t clusters_copied = 0;
  std::uint64_t bytes_copied = 0;
};

class OverlayFiller {
 public:
  // `write` false: counts what it would write. Borrows all three; nothing is durable before the overlay is flushed.
  OverlayFiller(Block& overlay, ChainView old_view, ChainView new_view, bool write);

  // At most this much at once, so that the caller can report and cancel in between.
  std::uint64_t window() const { return old_.size(); }
  // `range` is in whole allocation units (the last one may be cut by the disk's end) and no longer than the window. The
  // overlay has nothing there.
  Status fill(DiskRange range);
  const FillCounts& counts() const { return counts_; }

 private:
  Status find_differences(DiskRange range);
  Status write_differences(DiskRange range);
  Status write_run(DiskRange range, std::uint64_t begin, std::uint64_t end, bool zeros);

  Block& overlay_;
  ChainView old_view_, new_view_;
  const bool write_;
  const std::uint64_t unit_;
  AlignedBuffer old_;          // the window as the old chain shows it
  AlignedBuffer new_;          // the same as the new chain shows it
  std::vector<bool> differs_;  // one an allocation unit of the window
  FillCounts counts_;
};

}  // namespace sluicebox::image
