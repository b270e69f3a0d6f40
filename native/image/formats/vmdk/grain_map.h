// grain_map.h: where the grains of one sparse file lie: its directories, its tables, and what else is metadata.
// Knows: one file and its header. Does not know: guest bytes, descriptors, other extents.
// Threads: find() and table() from several at once while nobody writes; everything else from the one writer.
//
// A table that lies past the end of the file, or over another one, is followed by nobody: reads of what it maps are
// kImageCorrupt.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "base/result.h"
#include "image/file.h"
#include "image/formats/vmdk/header.h"
#include "image/metadata_budget.h"

namespace sluicebox::image::vmdk {

struct GrainTable {
  std::array<std::uint32_t, kTableEntries> entries = {};
  std::uint32_t dirty_sectors = 0;  // a bit each
};

enum class GrainKind : std::uint8_t { kUnallocated, kZero, kData };

// Grains side by side that are alike: those with data lie side by side in the file too.
struct GrainRun {
  GrainKind kind = GrainKind::kUnallocated;
  std::uint64_t length = 0;  // bytes, from the offset asked for
  std::uint64_t host = 0;    // bytes, of that offset; kData only
};

class GrainMap {
 public:
  // `sectors` of the disk are mapped, of those that the header has tables for.
  // `salvage`: what only a writer needs is not looked at.
  static Result<std::unique_ptr<GrainMap>> load(File& file, const SparseHeader& header, std::uint64_t sectors,
                                                bool salvage, std::shared_ptr<MetadataBudget> budget);
  ~GrainMap();
  GrainMap(const GrainMap&) = delete;
  GrainMap& operator=(const GrainMap&) = delete;

  File& file() const { return file_; }
  const SparseHeader& header() const { return header_; }
  std::uint64_t grain_bytes() const { return header_.geometry.grain_bytes(); }
  std::uint64_t bytes() const { return sectors_ * kSectorBytes; }
  std::uint64_t file_bytes() const { return file_bytes_; }
  void set_file_bytes(std::uint64_t bytes) { file_bytes_ = bytes; }

  // [offset, offset + length) is inside the disk, and length > 0. Compressed grains come one at a time.
  Result<GrainRun> find(std::uint64_t offset, std::uint64_t length);

  std::uint64_t tables() const { return directory_.size(); }
  std::uint32_t table_sector(std::uint64_t index) const { return directory_[index]; }
  bool has_redundant() const { return !redundant_.empty(); }
  std::uint32_t redundant_sector(std::uint64_t index) const { return redundant_[index]; }
  bool table_is_sound(std::uint64_t index) const { return !unsound_[index]; }
  bool redundant_is_sound(std::uint64_t index) const { return has_redundant() && !redundant_unsound_[index]; }
  // Of the first entry that cannot be followed; empty: all can.
  const std::string& damage() const { return damage_; }

  // The table's entries; it is there (its sector is not 0) and sound.
  Result<std::shared_ptr<GrainTable>> table(std::uint64_t index);
  // As it lies in the file, whatever waits in memory.
  Result<std::shared_ptr<GrainTable>> read_table(std::uint64_t sector) const;
  // Whether sectors [begin, end) of the file touch anything that is no grain.
  bool is_metadata(std::uint64_t begin, std::uint64_t end) const;
  std::uint64_t metadata_end() const { return metadata_.empty() ? 0 : metadata_.back().end; }  // sectors
  // Data can lie there: in the file, and over no metadata. `sectors` of it are looked at.
  bool may_hold_data(std::uint32_t sector, std::uint64_t sectors) const;
  // The sectors of the disk that grain `index` has.
  std::uint64_t grain_sectors(std::uint64_t index) const;
  Error corrupt(std::string what, std::uint64_t offset) const;
  const std::shared_ptr<MetadataBudget>& budget() const { return share_.budget(); }

  // For the writer: the entry changes in memory, and flush_tables() writes it.
  Status set_entry(std::uint64_t grain, std::uint32_t entry);
  bool has_changes() const { return !changed_.empty(); }
  std::size_t changed_tables() const { return changed_.size(); }
  // What the entries lead to is durable already. Tables, sync, redundant tables, sync.
  Status flush_tables();
  void forget_changes();
  // Every entry becomes 0: first where nobody looks, so that a crash leaves at worst a redundant table that is behind.
  Status clear_tables();
  // After a repair wrote to the file: nothing read before counts.
  void forget_tables() EXCLUDES(mutex_);

 private:
  struct Run {
    std::uint64_t begin = 0, end = 0;
  };
  GrainMap(File& file, const SparseHeader& header, std::uint64_t sectors, std::shared_ptr<MetadataBudget> budget)
      : file_(file), header_(header), sectors_(sectors), share_(std::move(budget)) {}
  Status read_redundant_directory();
  Status judge_tables();
  Result<std::vector<std::uint32_t>> read_directory(std::uint64_t sector, const char* what);
  Status write_changed(const std::vector<std::uint32_t>& directory);
  Status zero_tables(const std::vector<std::uint32_t>& directory);

  File& file_;
  const SparseHeader header_;
  const std::uint64_t sectors_;
  std::uint64_t file_bytes_ = 0;
  MetadataShare share_;
  std::vector<std::uint32_t> directory_, redundant_;
  std::vector<bool> unsound_, redundant_unsound_;
  std::vector<Run> metadata_;  // ascending and apart
  std::string damage_;
  std::map<std::uint64_t, std::shared_ptr<GrainTable>> changed_;  // the writer's

  // Tables read last, each in the slot that its number gives it; empty where the budget had no room.
  Mutex mutex_;
  struct Slot {
    std::uint64_t index = 0;
    std::shared_ptr<GrainTable> table;
  };
  std::vector<Slot> slots_ GUARDED_BY(mutex_);
};

}  // namespace sluicebox::image::vmdk
