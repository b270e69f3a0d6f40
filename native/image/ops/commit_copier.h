// commit_copier.h: writes into a base what the layers above it hold.
// Knows: block status and bytes of the layers. Does not know: paths, locks, flushes, what becomes of the layers above.
// Threads: one operation's thread.
//
// What it changes of the base is hidden by the layers above: whoever reads through them reads the same at every moment.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "image/chain.h"
#include "image/ops/context.h"
#include "image/ops/differing_ranges.h"

namespace sluicebox::image {

class CommitCopier {
 public:
  // `above`: what is committed, nearest first; `base`: the base, which is at least as large as the first of them, and
  // what it stands on. Borrows all blocks; of them only the base is written.
  CommitCopier(std::vector<Block*> above, std::vector<Block*> base, OperationContext& context);

  // How many bytes the layers above answer for. Reads no data.
  Result<std::uint64_t> count();
  // Writes them, and reports the phase "copy". Nothing is durable before the base is flushed.
  Status copy(std::uint64_t total);

 private:
  struct Held {
    DiskRange range;
    bool zero = false;
  };
  Result<std::optional<Held>> next_held(std::uint64_t from, std::uint64_t end);
  Status copy_window(std::uint64_t start, std::uint64_t end);
  Status write_units(DiskRange run, const std::vector<Held>& held);

  std::vector<Block*> base_chain_;
  Block& base_;
  const std::uint64_t unit_;
  const std::uint64_t size_;  // of the disk that is committed
  ChainView above_;
  const std::size_t depth_;  // the answer of a place that no layer above has anything for
  OperationContext& context_;
  std::uint64_t copied_ = 0;
  std::uint64_t total_ = 0;
  std::vector<std::byte> buffer_;
};

}  // namespace sluicebox::image
