// snapshot_entry.h: entries of the snapshot table as bytes: what is there already is kept as it is, with what others
// put into it. Knows: the qcow2 specification, section "Snapshots". Threads: pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "image/formats/qcow2/snapshot_table.h"

namespace sluicebox::image::qcow2 {

struct NewSnapshot {
  std::string id, name;
  std::int64_t seconds = 0;  // of the epoch
  std::uint32_t nanoseconds = 0;
  std::uint64_t l1_offset = 0;
  std::uint32_t l1_entries = 0;
  std::uint64_t disk_bytes = 0;
};
// Padded to 8.
std::vector<std::byte> snapshot_entry(const NewSnapshot& snapshot);

struct SnapshotText {
  std::string id, name;
};
// Of a table that was read already, whose bytes these are.
std::vector<SnapshotText> snapshot_texts(Bytes table, const std::vector<Snapshot>& entries);
// A number that is larger than all of theirs.
std::string next_snapshot_id(const std::vector<SnapshotText>& texts);
// Its id, or else its name; the number of them when none has it.
std::size_t index_of_snapshot(const std::vector<SnapshotText>& texts, const std::string& id_or_name);

}  // namespace sluicebox::image::qcow2
