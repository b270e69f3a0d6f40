// vhd.h: a VHD file, fixed, dynamic or differencing, as a Block.
// Knows: one file. Does not know: other layers, locks, operations.
// Threads: as block.h.
#pragma once

#include <memory>

#include "base/cancel.h"
#include "base/result.h"
#include "image/block.h"
#include "image/file.h"
#include "image/metadata_budget.h"

namespace sluicebox::image::vhd {

struct OpenOptions {
  bool writable = false;
  bool info_only = false;                            // the table of blocks is not read
  std::shared_ptr<MetadataBudget> budget = nullptr;  // shared with the layers that are open beside; absent: its own
  const CancelToken* cancel = nullptr;               // heard while it is opened
};

// `file` outlives the block. A differencing image whose parent's name cannot be made out is kImageChain, unless only
// its info is wanted: without the parent it would read as zeros.
Result<std::unique_ptr<Block>> open_vhd(File& file, const OpenOptions& options);

// A file that a caller named without a format: the cookie in front, or a sound footer at the end that fits the file. A
// guest's own bytes are the last of a raw disk as well: what it gains by writing a fixed footer there is that whoever
// names its disk without a format sees it 512 bytes shorter, and nothing else.
Result<bool> probe_vhd(const File& file);

}  // namespace sluicebox::image::vhd
