// snapshot_table.h: the internal snapshots of an image, read only.
// Knows: the qcow2 specification, section "Snapshots". Threads: pure functions over a file.
//
// Where snapshots keep their tables is read of all of them. What they are called is only for people: an image may claim
// 64 MiB of it, so the list that is shown ends where its text would pass 1 MiB.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/cancel.h"
#include "base/result.h"
#include "image/block.h"
#include "image/file.h"
#include "image/formats/qcow2/header.h"

namespace sluicebox::image::qcow2 {

struct Snapshot {
  std::uint64_t l1_offset = 0;
  std::uint32_t l1_entries = 0;
  std::uint64_t entry_bytes = 0;                           // in the table, padding included
  std::optional<std::uint64_t> disk_bytes = std::nullopt;  // absent (version 2): the disk's present size
};

struct SnapshotTable {
  std::vector<Snapshot> entries;
  std::vector<InternalSnapshot> shown;  // the first of them
  std::size_t memory_bytes() const;
};

// Bounded by the limits of layout.h and by what the file holds.
Result<SnapshotTable> read_snapshot_table(const File& file, const Header& header, std::uint64_t file_size,
                                          const CancelToken& cancel);
// The entry that `shown` gives this id, or else this name; nothing when none does.
const Snapshot* find_snapshot(const std::vector<Snapshot>& entries, const std::vector<InternalSnapshot>& shown,
                              const std::string& id_or_name);
std::uint64_t snapshot_table_bytes(const std::vector<Snapshot>& snapshots);

}  // namespace sluicebox::image::qcow2
