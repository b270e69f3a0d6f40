// snapshot_table.h: the internal snapshots of an image, read only.
// Knows: the qcow2 specification, section "Snapshots". Threads: pure functions over a file.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "image/block.h"
#include "image/file.h"
#include "image/formats/qcow2/header.h"

namespace sluicebox::image::qcow2 {

struct Snapshot {
  std::uint64_t l1_offset = 0;
  std::uint32_t l1_entries = 0;
  std::uint64_t entry_bytes = 0;  // in the table, padding included
  InternalSnapshot shown;
};

// Bounded by the limits of layout.h and by what the file holds.
Result<std::vector<Snapshot>> read_snapshot_table(const File& file, const Header& header, std::uint64_t file_size);
std::uint64_t snapshot_table_bytes(const std::vector<Snapshot>& snapshots);

}  // namespace sluicebox::image::qcow2
