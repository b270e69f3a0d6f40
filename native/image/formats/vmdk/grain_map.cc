#include "image/formats/vmdk/grain_map.h"

#include <algorithm>

#include "base/checked.h"

namespace sluicebox::image::vmdk {

namespace {

constexpr std::size_t kMostSlots = 1024;  // 2 MiB: what a walk over 32 GiB of disk comes back to

// One thing that is no grain: a table with its number, or anything else.
struct Claim {
  std::uint64_t begin = 0, end = 0;
  std::int64_t table = -1;  // of the directory; of the redundant one, -2 - number; -1: neither
};

}  // namespace

Result<std::unique_ptr<GrainMap>> GrainMap::load(File& file, const SparseHeader& header, std::uint64_t sectors,
                                                 bool salvage, std::shared_ptr<MetadataBudget> budget) {
  if (!budget) budget = std::make_shared<MetadataBudget>();
  std::unique_ptr<GrainMap> map(new GrainMap(file, header, sectors, std::move(budget)));
  map->file_bytes_ = TRY(file.size());
  map->directory_ = TRY(map->read_directory(header.directory, "the grain directory"));
  if (!salvage) TRY(map->read_redundant_directory());
  TRY(map->judge_tables());
  const MutexLock lock(map->mutex_);
  map->slots_.resize(std::min<std::uint64_t>(map->tables(), kMostSlots));
  return map;
}

GrainMap::~GrainMap() = default;

Error GrainMap::corrupt(std::string what, std::uint64_t offset) const {
  return Error(ErrorCode::kImageCorrupt, std::move(what)).on(file_.path()).at(offset);
}

Result<std::vector<std::uint32_t>> GrainMap::read_directory(std::uint64_t sector, const char* what) {
  const std::uint64_t bytes = header_.geometry.tables() * 4;
  const std::uint64_t offset = sector * kSectorBytes;
  if (offset > file_bytes_ || bytes > file_bytes_ - offset) {
    return corrupt(std::string(what) + " lies past the end of the file", offset);
  }
  TRY(share_.take(bytes));
  std::vector<std::uint32_t> entries(header_.geometry.tables());
  std::vector<std::byte> part(std::min<std::uint64_t>(bytes, 1u << 20));
  for (std::uint64_t done = 0; done < bytes;) {
    const std::uint64_t length = std::min<std::uint64_t>(part.size(), bytes - done);
    TRY(read_exact(file_, offset + done, MutableBytes(part).first(length), what));
    for (std::uint64_t i = 0; i < length; i += 4) entries[(done + i) / 4] = load_le32(part.data() + i);
    done += length;
  }
  return entries;
}

Status GrainMap::read_redundant_directory() {
  // A redundant directory that is the directory itself is none.
  if (!header_.has(kFlagRedundantDirectory) || header_.redundant_directory == header_.directory ||
      header_.compressed()) {
    return {};
  }
  Result<std::vector<std::uint32_t>> redundant =
      read_directory(header_.redundant_directory, "the redundant grain directory");
  if (redundant.ok()) {
    redundant_ = std::move(redundant).value();
  } else if (redundant.error().code == ErrorCode::kImageCorrupt) {
    damage_ = redundant.error().message;  // the disk reads without it
  } else {
    return std::move(redundant).error();
  }
  return {};
}

// Which tables can be followed: those inside the file that nothing else lies over.
Status GrainMap::judge_tables() {
  const std::size_t most = directory_.size() + redundant_.size() + 4;
  TRY(share_.take(most * (sizeof(Claim) + sizeof(Run))));
  std::vector<Claim> claims;
  claims.reserve(most);
  claims.push_back({.begin = 0, .end = 1});
  if (header_.descriptor_sectors != 0) {
    claims.push_back(
        {.begin = header_.descriptor_offset, .end = header_.descriptor_offset + header_.descriptor_sectors});
  }
  const std::uint64_t directory_sectors = header_.geometry.directory_sectors();
  claims.push_back({.begin = header_.directory, .end = header_.directory + directory_sectors});
  if (has_redundant()) {
    claims.push_back({.begin = header_.redundant_directory, .end = header_.redundant_directory + directory_sectors});
  }
  unsound_.resize(directory_.size());
  redundant_unsound_.resize(redundant_.size());
  const auto mark = [&](std::int64_t table, const char* what) {
    if (table == -1) return;
    if (table >= 0) {
      unsound_[static_cast<std::size_t>(table)] = true;
    } else {
      redundant_unsound_[static_cast<std::size_t>(-2 - table)] = true;
    }
    if (damage_.empty()) damage_ = what;
  };
  const auto claim = [&](const std::vector<std::uint32_t>& entries, bool redundant) {
    for (std::size_t i = 0; i < entries.size(); ++i) {
      const std::uint64_t begin = entries[i];
      const auto number = static_cast<std::int64_t>(i);
      const std::int64_t table = redundant ? -2 - number : number;
      if (begin == 0) continue;
      if ((begin + kTableSectors) * kSectorBytes > file_bytes_) {
        mark(table, "a grain table lies past the end of the file");
      } else {
        claims.push_back({.begin = begin, .end = begin + kTableSectors, .table = table});
      }
    }
  };
  claim(directory_, false);
  claim(redundant_, true);
  std::ranges::sort(claims, {}, &Claim::begin);
  // The one of those before that reaches furthest is what the next may lie over.
  std::size_t furthest = 0;
  for (std::size_t i = 1; i < claims.size(); ++i) {
    if (claims[i].begin < claims[furthest].end) {
      mark(claims[i].table, "a grain table lies over other metadata");
      mark(claims[furthest].table, "a grain table lies over other metadata");
    }
    if (claims[i].end > claims[furthest].end) furthest = i;
  }
  metadata_.reserve(claims.size());
  for (const Claim& each : claims) {
    if (!metadata_.empty() && each.begin <= metadata_.back().end) {
      metadata_.back().end = std::max(metadata_.back().end, each.end);
    } else {
      metadata_.push_back({.begin = each.begin, .end = each.end});
    }
  }
  metadata_.shrink_to_fit();
  share_.give_back(most * (sizeof(Claim) + sizeof(Run)) - metadata_.size() * sizeof(Run));
  return {};
}

bool GrainMap::is_metadata(std::uint64_t begin, std::uint64_t end) const {
  const auto after = std::ranges::upper_bound(metadata_, begin, {}, &Run::end);
  return after != metadata_.end() && after->begin < end;
}

bool GrainMap::may_hold_data(std::uint32_t sector, std::uint64_t sectors) const {
  return sector * kSectorBytes < file_bytes_ && !is_metadata(sector, sector + sectors);
}

std::uint64_t GrainMap::grain_sectors(std::uint64_t index) const {
  const std::uint64_t grain = header_.geometry.grain;
  return std::min(grain, sectors_ - index * grain);
}

Result<std::shared_ptr<GrainTable>> GrainMap::read_table(std::uint64_t sector) const {
  std::array<std::byte, kTableBytes> raw;
  TRY(read_exact(file_, sector * kSectorBytes, raw, "a grain table"));
  auto table = std::make_shared<GrainTable>();
  for (std::size_t i = 0; i < kTableEntries; ++i) table->entries[i] = load_le32(raw.data() + i * 4);
  return table;
}

Result<std::shared_ptr<GrainTable>> GrainMap::table(std::uint64_t index) {
  if (const auto changed = changed_.find(index); changed != changed_.end()) return changed->second;
  {
    const MutexLock lock(mutex_);
    const Slot& slot = slots_[index % slots_.size()];
    if (slot.table && slot.index == index) return slot.table;
  }
  std::shared_ptr<GrainTable> table = TRY(read_table(directory_[index]));
  const MutexLock lock(mutex_);
  Slot& slot = slots_[index % slots_.size()];
  if (slot.table || share_.take(sizeof(GrainTable)).ok()) slot = {.index = index, .table = table};
  return table;
}

Result<GrainRun> GrainMap::find(std::uint64_t offset, std::uint64_t length) {
  const std::uint64_t grain_size = grain_bytes();
  const std::uint64_t first = offset / grain_size;
  const std::uint64_t last = (offset + length - 1) / grain_size;
  const std::uint64_t table_index = first / kTableEntries;
  const std::uint64_t table_last = std::min(last, table_index * kTableEntries + kTableEntries - 1);
  GrainRun run;
  const auto reach = [&](std::uint64_t end_grain) {  // up to, and without, that grain
    run.length = std::min(end_grain * grain_size, offset + length) - offset;
    return run;
  };
  if (directory_[table_index] == 0) return reach(table_last + 1);
  if (unsound_[table_index]) {
    return corrupt("a grain table cannot be followed: " + damage_, header_.directory * kSectorBytes + table_index * 4);
  }
  const std::shared_ptr<GrainTable> table = TRY(this->table(table_index));
  const bool zeroed = header_.has(kFlagZeroedGrains);
  const auto entry_of = [&](std::uint64_t grain) { return table->entries[grain % kTableEntries]; };
  const auto kind_of = [&](std::uint32_t entry) {
    if (entry == kUnallocatedGrain) return GrainKind::kUnallocated;
    return zeroed && entry == kZeroedGrain ? GrainKind::kZero : GrainKind::kData;
  };
  const std::uint32_t entry = entry_of(first);
  run.kind = kind_of(entry);
  std::uint64_t end = first + 1;
  if (run.kind != GrainKind::kData) {
    while (end <= table_last && kind_of(entry_of(end)) == run.kind) ++end;
    return reach(end);
  }
  const std::uint64_t entry_at =
      std::uint64_t{directory_[table_index]} * kSectorBytes + first % kTableEntries * sizeof(entry);
  const std::uint64_t looked_at = header_.compressed() ? 1 : grain_sectors(first);
  if (!may_hold_data(entry, looked_at)) {
    return corrupt("a grain lies past the end of the file, or over metadata", entry_at);
  }
  run.host = std::uint64_t{entry} * kSectorBytes;
  if (header_.compressed()) return reach(end);
  run.host += offset % grain_size;
  while (end <= table_last) {
    const std::uint64_t wanted = entry + (end - first) * header_.geometry.grain;
    if (entry_of(end) != wanted || !may_hold_data(entry_of(end), grain_sectors(end))) break;
    ++end;
  }
  return reach(end);
}

Status GrainMap::set_entry(std::uint64_t grain, std::uint32_t entry) {
  const std::uint64_t index = grain / kTableEntries;
  if (directory_[index] == 0) {
    return Error(ErrorCode::kUnsupported, "the image has no grain table for a part of the disk, and none is added")
        .on(file_.path())
        .at(header_.directory * kSectorBytes + index * 4)
        .advise("write into an image that was made by this engine, QEMU or VMware");
  }
  if (unsound_[index]) return corrupt("a grain table cannot be followed: " + damage_, 0);
  auto found = changed_.find(index);
  if (found == changed_.end()) {
    // A copy: what is cached stays as the file has it until this is written.
    auto copy = std::make_shared<GrainTable>(*TRY(table(index)));
    found = changed_.emplace(index, std::move(copy)).first;
  }
  const std::uint64_t at = grain % kTableEntries;
  found->second->entries[at] = entry;
  found->second->dirty_sectors |= 1u << (at * 4 / kSectorBytes);
  return {};
}

Status GrainMap::write_changed(const std::vector<std::uint32_t>& directory) {
  std::array<std::byte, kSectorBytes> raw;
  constexpr std::size_t kPerSector = kSectorBytes / 4;
  for (const auto& [index, table] : changed_) {
    if (directory[index] == 0) continue;
    for (std::size_t sector = 0; sector < kTableSectors; ++sector) {
      if ((table->dirty_sectors & (1u << sector)) == 0) continue;
      for (std::size_t i = 0; i < kPerSector; ++i) {
        store_le32(raw.data() + i * 4, table->entries[sector * kPerSector + i]);
      }
      TRY(file_.write_at((directory[index] + sector) * kSectorBytes, raw));
    }
  }
  return file_.sync();
}

Status GrainMap::flush_tables() {
  if (changed_.empty()) return {};
  TRY(write_changed(directory_));
  if (has_redundant()) TRY(write_changed(redundant_));
  for (auto& [index, table] : changed_) table->dirty_sectors = 0;
  const MutexLock lock(mutex_);
  for (auto& [index, table] : changed_) {
    Slot& slot = slots_[index % slots_.size()];
    if (slot.table) slot = {.index = index, .table = table};
  }
  changed_.clear();
  return {};
}

void GrainMap::forget_changes() { changed_.clear(); }

void GrainMap::forget_tables() {
  const MutexLock lock(mutex_);
  for (Slot& slot : slots_) {
    if (slot.table) share_.give_back(sizeof(GrainTable));
    slot.table.reset();
  }
}

Status GrainMap::zero_tables(const std::vector<std::uint32_t>& directory) {
  const std::array<std::byte, kTableBytes> zeros = {};
  std::array<std::byte, kTableBytes> raw;
  for (const std::uint32_t sector : directory) {
    if (sector == 0) continue;
    TRY(read_exact(file_, sector * kSectorBytes, raw, "a grain table"));
    if (!all_zero(raw)) TRY(file_.write_at(sector * kSectorBytes, zeros));
  }
  return file_.sync();
}

Status GrainMap::clear_tables() {
  if (!damage_.empty()) return corrupt("the grain tables cannot be cleared: " + damage_, 0);
  if (has_redundant()) TRY(zero_tables(redundant_));
  TRY(zero_tables(directory_));
  forget_tables();
  return {};
}

}  // namespace sluicebox::image::vmdk
