// overlay_filler.h: writes into the overlay what only the old chain shows.
// Knows: the block interface, compared windows. Does not know: which ranges matter, chains, formats, headers.
// Threads: one operation's thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/result.h"
#include "image/block.h"
#include "image/ops/compare_ahead.h"

namespace sluicebox::image {

struct FillCounts {
  std::uint64_t bytes_compared = 0;
  std::uint64_t clusters_compared = 0;
  std::uint64_t clusters_copied = 0;
  std::uint64_t bytes_copied = 0;
};

class OverlayFiller {
 public:
  // `write` false: counts what it would write. Borrows the overlay; nothing is durable before that is flushed.
  OverlayFiller(Block& overlay, bool write) : overlay_(overlay), write_(write), unit_(overlay.allocation_unit()) {}

  // The overlay has nothing in the window's ranges.
  Status fill(const ComparedWindow& window);
  const FillCounts& counts() const { return counts_; }

 private:
  Status fill_range(const ComparedWindow& window, DiskRange range, std::uint64_t place);
  Status write_run(std::uint64_t offset, Bytes data, bool zeros);

  Block& overlay_;
  const bool write_;
  const std::uint64_t unit_;
  FillCounts counts_;
};

}  // namespace sluicebox::image
