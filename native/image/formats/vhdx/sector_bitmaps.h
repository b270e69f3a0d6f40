// sector_bitmaps.h: which sectors of a differencing VHDX's partly present blocks are its own: what the bitmaps in the
// file say, and what a writer has changed of that and not written yet.
// Knows: bits at offsets. Does not know: blocks, the table of them, how changes reach the file.
// Threads: read by several at once while nobody writes.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "base/result.h"
#include "image/file.h"
#include "image/formats/vhdx/layout.h"

namespace sluicebox::image::vhdx {

class SectorBitmaps {
 public:
  // By place in the file: whole pages, as the log takes them.
  using Pages = std::map<std::uint64_t, std::vector<std::byte>>;

  explicit SectorBitmaps(const File& file) : file_(file) {}

  // How many sectors from `first` on, at most to `last`, have the same bit as it, in the bitmap that lies at `bitmap`.
  // Looks at some KiB of it at most: a long run may take several calls.
  struct SameBits {
    bool set = false;
    std::uint64_t sectors = 0;
  };
  Result<SameBits> look(std::uint64_t bitmap, std::uint64_t first, std::uint64_t last) const;
  // Of a bitmap whose block is in the file already, be it new.
  Status change(std::uint64_t bitmap, std::uint64_t first, std::uint64_t last, bool set);

  Pages& changed() { return changed_; }

 private:
  Result<std::vector<std::byte>> page(std::uint64_t offset) const;

  const File& file_;
  Pages changed_;
};

}  // namespace sluicebox::image::vhdx
