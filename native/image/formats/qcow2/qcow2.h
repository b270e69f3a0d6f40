// qcow2.h: a qcow2 file as a Block.
// Knows: one file. Does not know: other layers, locks, operations.
// Threads: as block.h.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/cancel.h"
#include "base/result.h"
#include "image/block.h"
#include "image/file.h"
#include "image/metadata_budget.h"

namespace sluicebox::image::qcow2 {

struct OpenOptions {
  bool writable = false;
  // Opened by check with repair: a dirty or corrupt mark does not refuse it.
  bool for_repair = false;
  // Opened by info: features that cannot be read yet are reported by info(), and read() refuses them by name.
  bool info_only = false;
  // What only a writer needs (reference counts, other snapshots, bitmaps) is not looked at, and what the file's end
  // cuts off is damage: no read takes it for zeros. Never writable.
  bool salvage = false;
  std::shared_ptr<MetadataBudget> budget = nullptr;    // shared with the layers that are open beside; absent: its own
  const CancelToken* cancel = nullptr;                 // heard while it is opened
  std::optional<std::string> snapshot = std::nullopt;  // show what this one, by id or name, has kept; never writable
};

// `file` outlives the block. Writable: a dirty image (lazy refcounts) is repaired before the first write, a corrupt one
// refused.
Result<std::unique_ptr<Block>> open_qcow2(File& file, const OpenOptions& options);

// Maps every cluster of an image that was just created, without backing, to fresh clusters that read as zeros, and
// makes the file as long as they need. `block` comes from open_qcow2, writable; durable on return.
Status preallocate_metadata(Block& block, ProgressSink& progress, const CancelToken& cancel);

// The first bytes say qcow2 (magic and a version this engine knows).
bool probe_qcow2(Bytes head);

}  // namespace sluicebox::image::qcow2
