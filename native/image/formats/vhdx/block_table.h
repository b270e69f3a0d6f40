// block_table.h: the table of a VHDX's blocks (its BAT): where an entry lies, and what it says.
// Knows: the format's layout (MS-VHDX 2.5). Does not know: files.
// Threads: values, pure functions.
#pragma once

#include <cstdint>

#include "base/checked.h"
#include "image/formats/vhdx/layout.h"

namespace sluicebox::image::vhdx {

// 3 bits of an entry, of blocks of the disk; a sector bitmap's is kNotPresent or kPresent.
enum class BlockState : std::uint8_t {
  kNotPresent = 0,  // the parent shows through, or zeros
  kUndefined = 1,
  kZero = 2,
  kUnmapped = 3,
  kUnmappedOld = 5,  // of drafts of the format
  kPresent = 6,
  kPartlyPresent = 7,  // the sector bitmap says which sectors
};

constexpr BlockState state_of(std::uint64_t entry) { return static_cast<BlockState>(entry & 7); }
constexpr std::uint64_t offset_of(std::uint64_t entry) { return entry & ~(kMiB - 1); }
constexpr std::uint64_t entry_of(BlockState state, std::uint64_t offset) {
  return offset | static_cast<std::uint64_t>(state);
}

// Entries of a chunk's blocks are followed by that of its sector bitmap.
struct TableShape {
  std::uint64_t blocks = 0;
  std::uint64_t chunk_blocks = 1;
  bool has_parent = false;

  TableShape() = default;
  TableShape(std::uint64_t disk_bytes, std::uint64_t block_size, std::uint64_t sector_size, bool parent)
      : blocks(div_round_up(disk_bytes, block_size)),
        chunk_blocks(kChunkSectors * sector_size / block_size),
        has_parent(parent) {}

  // Without a parent, the bitmap behind the last chunk has no entry.
  std::uint64_t entries() const {
    if (has_parent) return div_round_up(blocks, chunk_blocks) * (chunk_blocks + 1);
    return blocks == 0 ? 0 : blocks + (blocks - 1) / chunk_blocks;
  }
  // How many blocks so many entries can tell of.
  std::uint64_t most_blocks(std::uint64_t most_entries) const {
    const std::uint64_t chunks = most_entries / (chunk_blocks + 1);
    return has_parent ? chunks * chunk_blocks : most_entries - chunks;
  }
  // The first entry that tells nothing of the disk, but for the bitmap of the last chunk, which may lie behind it.
  std::uint64_t end() const { return has_parent ? entry_of_block(blocks) : entries(); }
  std::uint64_t entry_of_block(std::uint64_t block) const { return block + block / chunk_blocks; }
  std::uint64_t entry_of_bitmap(std::uint64_t block) const { return bitmap_of_entry(entry_of_block(block)); }
  // Of the bitmap that tells of a block's sectors, by the block's own entry.
  std::uint64_t bitmap_of_entry(std::uint64_t entry) const { return entry - entry % (chunk_blocks + 1) + chunk_blocks; }
  bool is_bitmap(std::uint64_t entry) const { return entry % (chunk_blocks + 1) == chunk_blocks; }
};

}  // namespace sluicebox::image::vhdx
