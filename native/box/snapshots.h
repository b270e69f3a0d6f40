// snapshots.h: the snapshots of a box as they lie in its directory, and the layers of its disks that they keep.
// Knows: JSON, files. Does not know: QEMU, how a snapshot is taken.
// Threads: a worker's; one change to a box's snapshots at a time.
//
// ID/snapshots/SID/snapshot.json  written last, by rename: without it there is no snapshot
// ID/snapshots/SID/state          of the machine: what QEMU wrote of its memory and devices
// ID/diskN.qcow2, ID/diskN-K.qcow2  layers: the box writes to one of each disk's, the others do not change any more
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "box/record.h"

namespace sluicebox::box {

struct SnapshotDisk {
  std::string overlay;           // the layer that holds its last, a name in the box's directory; empty: none of its own
  std::vector<FileFacts> bases;  // under it, nearest first
  std::uint64_t size = 0;        // bytes of the disk
};
struct SnapshotRecord {
  std::string id;
  std::string name;
  std::int64_t created_at_ms = 0;  // of the epoch
  bool memory = false;
  std::uint64_t bytes = 0;  // on disk
  double paused_ms = 0;
  std::string parent;  // id of the one before it; empty: none
  std::string labels;  // the SDK's own JSON text
  std::string qemu;    // with memory: which QEMU can read it
  std::vector<SnapshotDisk> disks;
};

// Oldest first. What was left half-made is not among them.
Result<std::vector<SnapshotRecord>> list_snapshots(int box_directory);
// By name or id. kSnapshotNotFound.
Result<SnapshotRecord> find_snapshot(int box_directory, const std::string& name_or_id);

// A directory for a new one, open; abandon it with drop_snapshot().
Result<UniqueFd> begin_snapshot(int box_directory, const std::string& id);
Status finish_snapshot(int box_directory, const SnapshotRecord& record);
// Whether it was finished or not; its layers are for drop_unused_layers().
Status drop_snapshot(int box_directory, const std::string& id);
Result<UniqueFd> open_state(int box_directory, const std::string& id);

// What a crash left of snapshots that never were. Nobody may be taking one.
void drop_half_made(int box_directory);
// Deletes the layers that neither the box nor a snapshot of it lies on.
void drop_unused_layers(int box_directory, const BoxRecord& record);
// Names of the layers that the snapshots lie on. An error where one of them cannot be read: nobody knows, then.
Result<std::set<std::string>> layers_of_snapshots(int box_directory);
// A name for a new layer of the disk, which nobody has.
std::string free_layer_name(int box_directory, std::size_t disk);
// Bytes of the file system; 0: there is no such file.
std::uint64_t space_of(int directory, const std::string& name);
// Whether the file lies in that directory by its own name.
bool is_own(int box_directory, const FileFacts& file);
// And is one that was made to lie under or over others, not what the caller gave the disk.
bool is_own_layer(int box_directory, const FileFacts& file);

}  // namespace sluicebox::box
