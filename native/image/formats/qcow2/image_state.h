// image_state.h: one open qcow2 file: its header, its L1 table, and where its metadata lies.
// Knows: the file, the header, the snapshot table. Does not know: guest offsets, allocation.
// Threads: as block.h: immutable while nobody writes, but for the cache, which locks itself.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/cancel.h"
#include "base/result.h"
#include "image/file.h"
#include "image/formats/qcow2/header.h"
#include "image/formats/qcow2/metadata_map.h"
#include "image/formats/qcow2/snapshot_table.h"
#include "image/formats/qcow2/table_cache.h"
#include "image/metadata_budget.h"

namespace sluicebox::image::qcow2 {

struct LoadOptions {
  bool header_only = false;                          // the header and the snapshot table, no other
  bool writable = false;                             // a writer comes back to its tables, a reader passes them once
  bool salvage = false;                              // as OpenOptions says
  std::shared_ptr<MetadataBudget> budget = nullptr;  // absent: one of its own
  const CancelToken* cancel = nullptr;               // absent: it cannot be cancelled
  // Present: the disk is the one that this internal snapshot shows, to be read only.
  std::optional<std::string> snapshot = std::nullopt;
};

struct ImageState {
  ImageState(File& image_file, Header parsed, const LoadOptions& options);

  File& file;
  Header header;
  const bool salvage;
  MetadataShare tables;  // what the members below take
  // The file's length, as far as we know or have written it; on a block device, once it is written, where the image
  // ends.
  std::uint64_t file_end = 0;
  std::vector<std::uint64_t> l1;
  std::vector<std::uint64_t> refcount_table;
  std::vector<Snapshot> snapshots;
  std::vector<InternalSnapshot> shown_snapshots;  // the first of them, as many as are shown
  MetadataMap metadata;
  ClusterRuns shared_tables;    // clusters that more than one table claims: none of them is followed
  std::string metadata_damage;  // non-empty: why nothing may be written
  TableCache l2_tables;

  const Geometry& geometry() const { return header.geometry; }
  Error corrupt(std::string what, std::uint64_t offset) const;
  // Every write of this image passes here.
  Status write(std::uint64_t offset, Bytes data);
  // [offset, offset + bytes) is backed by the file.
  bool in_file(std::uint64_t offset, std::uint64_t bytes) const {
    return offset <= file_end && bytes <= file_end - offset;
  }
  // A table or cluster that begins inside the file: the last one may be cut short by its end.
  bool begins_in_file(std::uint64_t offset) const { return offset < file_end; }
};

// Reads header, tables and snapshots. kImageChain when the budget has no room for them.
Result<std::unique_ptr<ImageState>> load_image(File& file, const LoadOptions& options);

// `count` big-endian 64-bit entries, which the file must have.
Result<std::vector<std::uint64_t>> read_table(const ImageState& image, std::uint64_t offset, std::uint64_t count,
                                              const char* what, const CancelToken& cancel);

}  // namespace sluicebox::image::qcow2
