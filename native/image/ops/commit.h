// commit.h: writes what an overlay holds into an image that it stands on, and then empties the overlay or removes it.
// Knows: block interface, chain, locks. Does not know: which formats the layers have. Threads: one worker a call.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "image/disk_format.h"
#include "image/file.h"
#include "image/ops/context.h"

namespace sluicebox::image {

enum class Committed : std::uint8_t { kEmptied, kRemoved, kLeft };  // kLeft: as it was, and hiding nothing new

struct CommitOptions {
  std::optional<std::string> into = std::nullopt;   // a file of the overlay's chain; absent: its backing
  std::optional<DiskFormat> format = std::nullopt;  // the overlay's
  Committed overlay = Committed::kEmptied;          // what becomes of it
  std::vector<FileIdentity> known = {};             // what the chain may consist of, wherever it lies
};

struct CommitResult {
  std::uint64_t bytes_committed = 0;
};

// Killed at any moment, the overlay (as long as it is there) reads as before: the base changes only where it is hidden,
// and is durable before the overlay lets go of anything. Phases reported: "plan", "copy", "empty" or "remove".
Result<CommitResult> commit_image(const std::string& path, const CommitOptions& options, OperationContext& context);

}  // namespace sluicebox::image
