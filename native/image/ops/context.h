// context.h: what every operation is given beside its own options.
// Knows: policy, cancel, progress. Threads: one operation's worker.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "base/cancel.h"
#include "base/path_policy.h"
#include "base/progress.h"
#include "image/file.h"
#include "image/metadata_budget.h"

namespace sluicebox::image {

// Images in a chain, the overlay included: of one that others made, and of one that is a box's own.
inline constexpr std::size_t kMaxChainDepth = 16;
inline constexpr std::size_t kMaxOwnChainDepth = 128;

struct OperationContext {
  const PathPolicy& policy;
  CancelToken& cancel;
  ProgressSink& progress;
  // The seam for fault injection: every file that an operation opens for writing passes through it. Null: as it is.
  std::function<std::unique_ptr<File>(std::unique_ptr<File>)> wrap_file = nullptr;
  // The seam for races: called when a file was opened and is not locked yet. Null: nothing happens there.
  std::function<void()> before_lock = nullptr;
  // Of all layers that the operation opens.
  std::shared_ptr<MetadataBudget> metadata = std::make_shared<MetadataBudget>();
  std::size_t chain_depth = kMaxChainDepth;
};

}  // namespace sluicebox::image
