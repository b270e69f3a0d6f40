// image_state.h: one open qcow2 file: its header, its L1 table, and where its metadata lies.
// Knows: the file, the header, the snapshot table. Does not know: guest offsets, allocation.
// Threads: as block.h: immutable while nobody writes, but for the cache, which locks itself.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "image/file.h"
#include "image/formats/qcow2/header.h"
#include "image/formats/qcow2/metadata_map.h"
#include "image/formats/qcow2/snapshot_table.h"
#include "image/formats/qcow2/table_cache.h"

namespace sluicebox::image::qcow2 {

struct ImageState {
  ImageState(File& image_file, Header parsed);

  File& file;
  Header header;
  std::uint64_t file_end = 0;  // the file's length, as far as we know or have written it
  std::vector<std::uint64_t> l1;
  std::vector<std::uint64_t> refcount_table;
  std::vector<Snapshot> snapshots;
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

// Reads header, tables and snapshots. `header_only` stops after the header and the snapshot table.
Result<std::unique_ptr<ImageState>> load_image(File& file, bool header_only);

// `count` big-endian 64-bit entries, which the file must have.
Result<std::vector<std::uint64_t>> read_table(const ImageState& image, std::uint64_t offset, std::uint64_t count,
                                              const char* what);

}  // namespace sluicebox::image::qcow2
