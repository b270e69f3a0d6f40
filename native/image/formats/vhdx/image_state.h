// image_state.h: one open VHDX, read and judged: headers, log, regions, metadata, and the table of blocks.
// Knows: one file. Does not know: guests' bytes, writing.
// Threads: read by several at once while nobody writes.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/cancel.h"
#include "base/result.h"
#include "image/file.h"
#include "image/formats/vhdx/block_table.h"
#include "image/formats/vhdx/header.h"
#include "image/formats/vhdx/metadata.h"
#include "image/formats/vhdx/region_table.h"
#include "image/formats/vhdx/replayed_file.h"
#include "image/formats/vhdx/sector_bitmaps.h"
#include "image/metadata_budget.h"

namespace sluicebox::image::vhdx {

// Bytes of the file that are not a block's.
struct TakenRange {
  std::uint64_t begin = 0, end = 0;
};

struct ImageState {
  ImageState(File& image_file, std::shared_ptr<MetadataBudget> budget)
      : file(image_file), tables(budget ? std::move(budget) : std::make_shared<MetadataBudget>()) {}

  ReplayedFile file;  // with what its log says is still to do
  MetadataShare tables;
  Header header;
  unsigned header_copy = 0;  // which of the two it is
  RegionTable regions;
  bool region_table_sound[2] = {true, true};
  Metadata metadata;
  TableShape shape;
  std::vector<TakenRange> taken;
  std::vector<std::uint64_t> table;
  std::vector<bool> damaged;  // entries of the table that cannot be right; empty when there are none
  SectorBitmaps bitmaps{file};

  // A log that is to be replayed, or that was begun and has nothing sound in it.
  bool has_log() const { return !is_nil(header.log); }
  // Of a disk of another size, in the same blocks.
  TableShape shape_of(std::uint64_t disk_bytes) const {
    return {disk_bytes, metadata.block_size, metadata.logical_sector, metadata.has_parent};
  }
  // Whether an entry says that something lies in the file, and how many bytes those are.
  bool has_place(std::uint64_t entry) const {
    const BlockState state = state_of(table[entry]);
    if (shape.is_bitmap(entry)) return shape.has_parent && state != BlockState::kNotPresent;
    return state == BlockState::kPresent || state == BlockState::kPartlyPresent;
  }
  std::uint64_t bytes_of(std::uint64_t entry) const {
    return shape.is_bitmap(entry) ? kBitmapBlockBytes : metadata.block_size;
  }
  // Where a block's sectors begin in its bitmap.
  std::uint64_t first_bit(std::uint64_t block) const {
    return block % shape.chunk_blocks * (metadata.block_size / metadata.logical_sector);
  }
  bool is_damaged(std::uint64_t entry) const { return !damaged.empty() && damaged[entry]; }
  Error corrupt(std::string text, std::uint64_t at) const {
    return Error(ErrorCode::kImageCorrupt, std::move(text)).on(file.path()).at(at);
  }
};

struct LoadOptions {
  bool header_only = false;  // without the table of blocks
  std::shared_ptr<MetadataBudget> budget = nullptr;
  const CancelToken* cancel = nullptr;
};
// Writes nothing: a log is replayed in memory.
Result<std::unique_ptr<ImageState>> load_image(File& file, const LoadOptions& options);

}  // namespace sluicebox::image::vhdx
