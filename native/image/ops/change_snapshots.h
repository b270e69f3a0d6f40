// change_snapshots.h: makes, applies and removes the snapshots inside an image.
// Knows: chain, block interface. Threads: one worker a call.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "image/disk_format.h"
#include "image/ops/context.h"

namespace sluicebox::image {

enum class SnapshotChange : std::uint8_t { kCreate, kApply, kRemove };

struct SnapshotOptions {
  SnapshotChange change{};
  std::string name;  // of the one that is made; else an id, or else a name
  std::optional<DiskFormat> format = std::nullopt;
};

// Killed at any moment, the disk and every snapshot read as before or after. kSnapshotExists, kSnapshotNotFound.
Status change_snapshots(const std::string& path, const SnapshotOptions& options, OperationContext& context);

}  // namespace sluicebox::image
