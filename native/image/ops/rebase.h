// rebase.h: moves an overlay to another backing image without changing what the guest sees (or, unsafe, just the
// pointer). Knows: block interface, chain, locks. Does not know: which format the overlay has. Threads: one worker a
// call.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "image/chain.h"
#include "image/disk_format.h"
#include "image/ops/context.h"

namespace sluicebox::image {

struct RebaseOptions {
  std::optional<std::string> backing = std::nullopt;  // absent or "": detach
  std::optional<DiskFormat> backing_format = std::nullopt;
  std::optional<DiskFormat> format = std::nullopt;  // the overlay's
  bool unsafe = false;
  bool dry_run = false;
  std::vector<FileIdentity> known = {};  // what either chain may consist of, wherever it lies
};

struct RebaseResult {
  DiskFormat format = DiskFormat::kQcow2;
  std::optional<std::string> backing_format = std::nullopt;  // of the new backing
  std::optional<std::string> from, to;                       // as recorded
  std::uint64_t clusters_compared = 0;
  std::uint64_t clusters_copied = 0;
  std::uint64_t bytes_copied = 0;
};

// Phases reported: "plan", "compare", "copy", "header".
Result<RebaseResult> rebase_image(const std::string& path, const RebaseOptions& options, OperationContext& context);

// The same for an overlay that is open already, a running machine's too: its block is what reaches it. `chosen`, if
// there is one, hears of the new chain before anything is written: what it was compared with is what is to be opened.
using ChainChosen = std::function<Status(const std::vector<Layer>& chain)>;
Result<RebaseResult> rebase_overlay(const Layer& overlay, const RebaseOptions& options, OperationContext& context,
                                    const ChainChosen& chosen = nullptr);

}  // namespace sluicebox::image
