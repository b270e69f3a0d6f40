// writer.h: changes what the guest sees, in an order that a crash at any moment survives.
// Knows: mapping, allocation. Does not know: the backing, the header's text.
// Threads: the one writer.
//
// Data goes to the file at once, into clusters that nothing points at yet. Tables change in memory, and flush() makes
// them durable in this order, with a sync behind each step:
//   1. data, raised reference counts, new L2 tables;  2. the refcount table, if blocks were added;
//   3. pointers: L2 entries, then L1 entries' own sectors;  4. lowered reference counts of what nothing points at.
// So a crash leaks clusters at most. Only a guest's overwrite of a cluster that it already owns goes in place, where a
// crash may leave old and new bytes mixed within the written range, as on any disk.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "base/cancel.h"
#include "base/progress.h"
#include "base/result.h"
#include "image/formats/qcow2/allocator.h"
#include "image/formats/qcow2/image_state.h"
#include "image/formats/qcow2/l2_entry.h"
#include "image/formats/qcow2/refcounts.h"
#include "image/formats/qcow2/snapshot_entry.h"

namespace sluicebox::image::qcow2 {

class Writer {
 public:
  explicit Writer(ImageState& image) : image_(image), refcounts_(image), allocator_(image, refcounts_) {}

  // Looks at all metadata, so that no write lands in a cluster whose count is wrong. Otherwise the first write does it.
  Status prepare(ProgressSink& progress, const CancelToken& cancel);
  // What was written since the last flush is given up, and the file is as long as before. Only flush() may follow.
  void abandon();
  // Ranges of whole units, inside the disk; the last one may be cut by its end.
  Status write(std::uint64_t offset, Bytes data);
  Status write_zeros(std::uint64_t offset, std::uint64_t length);
  // One cluster, as the stream that inflates to it.
  Status write_packed(std::uint64_t offset, Bytes stream);
  // Maps those of these clusters of the disk that have none to fresh ones at the end of the file, which read as zeros.
  // `data`: their units that are in use from now on, where entries can tell.
  struct FreshClusters {
    std::uint64_t begin = 0, end = 0;
    std::uint32_t data = 0;
  };
  Status preallocate(const FreshClusters& fresh, ProgressSink& progress, const CancelToken& cancel);
  // Room for a disk of so many bytes: an L1 table for it, and nothing mapped behind the present end. The disk stays as
  // large as it is, and write() and write_zeros() may reach to where it is to end.
  Status make_room(std::uint64_t disk_bytes);
  // One write of the header, durable on return. What was written before is flushed first.
  Status set_disk_size(std::uint64_t bytes);
  // Unmaps all units from `offset` on that begin there or behind: they read as the backing does, or as zeros.
  Status unmap_from(std::uint64_t offset);
  // Flushes, and cuts the end of the file off that nothing uses.
  Status trim();
  Status flush();
  // Internal snapshots. Nothing is written after one of these: the image is to be loaded anew. `wanted`: its name and
  // time. kSnapshotExists, kSnapshotNotFound, kUnsupported where no more can be counted.
  Status create_snapshot(const NewSnapshot& wanted, ProgressSink& progress, const CancelToken& cancel);
  Status apply_snapshot(const std::string& id_or_name, ProgressSink& progress, const CancelToken& cancel);
  Status remove_snapshot(const std::string& id_or_name, ProgressSink& progress, const CancelToken& cancel);
  // Before a change of the header alone: refuses an image marked corrupt, clears what would not be kept up to date.
  Status prepare_header();

 private:
  Status prepare();
  Status survey(ProgressSink& progress, const CancelToken& cancel);
  Status guarded(Status outcome);
  Status write_tail_padded(std::uint64_t offset, Bytes data);
  Result<std::uint64_t> write_some(std::uint64_t offset, Bytes data);
  Result<std::uint64_t> overwrite(const CachedTable& table, std::uint64_t index, Bytes data);
  Result<std::uint64_t> write_new(CachedTable& table, std::uint64_t index, Bytes data);
  Status write_within(CachedTable& table, std::uint64_t index, std::uint64_t offset, Bytes data);
  Status clear_units(CachedTable& table, std::uint64_t index, std::uint64_t offset, std::uint32_t units, bool zeros);
  Status give_back(const ClusterRun& run, std::uint64_t from);
  Status write_stream(std::uint64_t offset, Bytes stream);
  Result<std::uint64_t> place_stream(std::uint64_t bytes);
  Status pad_file();

  Result<std::shared_ptr<CachedTable>> table_for(std::uint64_t l1_index);
  Result<L2Entry> entry_at(const CachedTable& table, std::uint64_t index) const;
  // The entry's cluster is this entry's alone, so it may be written in place.
  Result<bool> owns(const CachedTable& table, std::uint64_t index, const L2Entry& entry);
  void set_raw_entry(CachedTable& table, std::uint64_t index, const RawL2Entry& raw);
  void set_entry(CachedTable& table, std::uint64_t index, const L2Entry& entry) {
    set_raw_entry(table, index, encode_l2(entry, image_.geometry()));
  }
  RawL2Entry raw_entry(const CachedTable& table, std::uint64_t index) const {
    return load_l2_entry(table.bytes(), index, image_.geometry());
  }
  std::uint64_t entry_offset(const CachedTable& table, std::uint64_t index) const {
    return table.offset() + index * image_.geometry().l2_entry_bytes();
  }
  Result<std::uint64_t> entries_without_cluster(const CachedTable& table, std::uint64_t first,
                                                std::uint64_t most) const;
  static L2Entry own_cluster(std::uint64_t host, std::uint32_t data) {
    return {.host = host, .data = data, .copied = true};
  }
  // What the entry points at loses a reference, once the entry's successor is durable.
  Status release(const L2Entry& entry);
  Status grow_l1(std::uint64_t entries);
  Status unmap_table(std::uint64_t l1_index);
  Status unmap_in_table(std::uint64_t offset);
  Status release_entry(const CachedTable& table, std::uint64_t index);
  Status drop_empty_blocks();
  Status relieve();
  Status flush_steps();
  Status write_fresh_tables();
  Status write_moved_l1();
  Status write_pointers();
  Status write_l1_pointer();
  Status write_l1_entries();
  Status lower_released();
  void mark_corrupt();

  // writer_snapshots.cc
  Status begin_snapshots(ProgressSink& progress, const CancelToken& cancel);
  Result<std::vector<std::byte>> read_snapshots();
  Result<std::size_t> find_snapshot_index(const std::string& id_or_name);
  Result<std::vector<std::uint64_t>> l1_of(const Snapshot& snapshot);
  template <typename Visit>
  Status walk_tree(const std::vector<std::uint64_t>& l1, const Visit& visit);
  Status require_countable(const std::vector<std::uint64_t>& l1);
  Status raise_tree(const std::vector<std::uint64_t>& l1);
  Status release_tree(const std::vector<std::uint64_t>& l1);
  void release_run(std::uint64_t offset, std::uint64_t bytes);
  Status drop_flags(const std::vector<std::uint64_t>& l1, bool active);
  Status set_flags();
  Result<std::uint64_t> place(Bytes bytes);
  Result<std::uint64_t> place_l1(const std::vector<std::uint64_t>& l1);
  Status switch_snapshots(const std::vector<std::byte>& table, std::uint32_t count);
  Status switch_header(std::uint64_t offset, Bytes fields);
  Status mark_unclean(bool unclean);

  ImageState& image_;
  Refcounts refcounts_;
  Allocator allocator_;
  bool prepared_ = false;
  bool data_written_ = false;
  std::vector<std::shared_ptr<CachedTable>> dirty_tables_;
  std::set<std::uint64_t> dirty_l1_;
  bool l1_moved_ = false;                // the header is still to be told
  std::vector<std::uint64_t> released_;  // host clusters
  std::uint64_t kept_end_ = 0;           // what is on disk may refer to anything below this
  std::uint64_t packed_end_ = 0;         // the next stream may follow here, in a cluster that others share; 0: nowhere
  std::optional<Error> failed_;          // after a failed step nothing more is written
};

}  // namespace sluicebox::image::qcow2
