// convert_ranges.h: which parts of a disk a conversion has to read.
// Knows: block status of the source's chain and of the new backing's. Reads no data.
// Threads: one operation's thread.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/cancel.h"
#include "base/result.h"
#include "image/chain.h"
#include "image/ops/differing_ranges.h"

namespace sluicebox::image {

// What is converted, and what the new image stands on; nothing there: on zeros.
struct ConvertLayers {
  std::vector<Block*> source, backing;
  // How many of the source's layers lie above the file that both share; all of them where they share none.
  std::size_t own_layers = 0;
  bool salvage = false;  // what the backing shows where it is damaged is taken for something else
};

class ConvertRanges {
 public:
  // `size` is the new disk's, `grain` a power of two. `everything`: zeros are not left out.
  ConvertRanges(const ConvertLayers& layers, std::uint64_t size, std::uint64_t grain, bool everything,
                const CancelToken& cancel);

  // Ascending and apart, in whole grains but for the end of the disk; nothing at the end.
  Result<std::optional<DiskRange>> next();

 private:
  struct Step {
    bool left_out = false;
    std::uint64_t length = 0;
  };
  Result<Step> step(std::uint64_t length);

  ChainView own_, source_, backing_;
  const std::size_t own_layers_;
  const std::uint64_t size_, grain_;
  const bool shares_, stands_on_zeros_, everything_, salvages_;
  const CancelToken& cancel_;
  std::uint64_t at_ = 0;
};

}  // namespace sluicebox::image
