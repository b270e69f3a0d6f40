// vhdx.h: a VHDX file, fixed, dynamic or differencing, as a Block.
// Knows: one file. Does not know: other layers, locks, operations.
// Threads: as block.h.
#pragma once

#include <memory>

#include "base/cancel.h"
#include "base/result.h"
#include "image/block.h"
#include "image/file.h"
#include "image/metadata_budget.h"

namespace sluicebox::image::vhdx {

struct OpenOptions {
  bool writable = false;
  bool info_only = false;                            // the table of blocks is not read
  std::shared_ptr<MetadataBudget> budget = nullptr;  // shared with the layers that are open beside; absent: its own
  const CancelToken* cancel = nullptr;               // heard while it is opened
};

// `file` outlives the block. A log is replayed in memory; the first write makes its changes in the file and clears it.
// A differencing image that names no parent is kImageChain, unless only its info is wanted.
Result<std::unique_ptr<Block>> open_vhdx(File& file, const OpenOptions& options);

// The first bytes say vhdx.
bool probe_vhdx(Bytes head);

}  // namespace sluicebox::image::vhdx
