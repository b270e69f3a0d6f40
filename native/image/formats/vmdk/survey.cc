#include "image/formats/vmdk/survey.h"

#include <algorithm>
#include <optional>

namespace sluicebox::image::vmdk {

namespace {

class Surveyor {
 public:
  Surveyor(GrainMap& map, Repair repair, CheckReport* report) : map_(map), repair_(repair), report_(report) {}

  Result<Survey> walk(ProgressSink& progress, const CancelToken& cancel);

 private:
  Status walk_table(std::uint64_t index);
  void visit(std::uint64_t grain, std::uint32_t entry, std::uint64_t entry_at);
  // Compares with the redundant table; true when `entry` was replaced by what that one has.
  bool compare(std::uint64_t grain, std::uint32_t& entry, std::uint32_t& redundant, std::uint64_t entry_at);
  bool is_sound(std::uint64_t grain, std::uint32_t entry) const;
  Status note_directories();
  Status settle_leaks();
  void corrupt(const char* kind, std::uint64_t offset, std::string message, bool fixed = false);
  std::uint64_t grain_sectors() const { return map_.header().geometry.grain; }
  // As far as entries can reach.
  std::uint64_t file_sectors() const { return std::min(map_.file_bytes() / kSectorBytes, kMaxFileSectors); }

  GrainMap& map_;
  const Repair repair_;
  CheckReport* const report_;
  Survey survey_;
  std::vector<bool> used_;  // a bit a slot of the file
  std::uint64_t used_count_ = 0, last_slot_end_ = 0;
  std::optional<std::uint64_t> phase_;
  std::uint64_t previous_ = 0;  // the entry before, for fragments
};

Result<Survey> Surveyor::walk(ProgressSink& progress, const CancelToken& cancel) {
  const std::size_t slots = file_sectors() / grain_sectors() + 2;
  MetadataShare share(map_.budget());
  TRY(share.take(slots / 8));
  used_.resize(slots);
  TRY(note_directories());
  for (std::uint64_t index = 0; index < map_.tables(); ++index) {
    TRY(cancel.check());
    TRY(walk_table(index));
    if (report_ != nullptr && index % 64 == 0) {
      progress.report({.phase = "check", .done = index, .total = map_.tables(), .unit = ProgressUnit::kItems});
    }
  }
  survey_.phase = phase_.value_or(0);
  survey_.data_end = std::max(last_slot_end_, map_.metadata_end());
  if (report_ != nullptr) TRY(settle_leaks());
  return survey_;
}

void Surveyor::corrupt(const char* kind, std::uint64_t offset, std::string message, bool fixed) {
  if (survey_.damage.empty() && !fixed) survey_.damage = message;
  if (report_ == nullptr) return;
  if (fixed) {
    ++report_->corruptions_fixed;
  } else {
    ++report_->corruptions;
  }
  report_->note(kind, offset, std::move(message));
}

Status Surveyor::note_directories() {
  const SparseHeader& header = map_.header();
  if (header.has(kFlagRedundantDirectory) && !map_.has_redundant() && !map_.damage().empty()) {
    corrupt("redundant-directory", header.redundant_directory * kSectorBytes, map_.damage());
  }
  for (std::uint64_t i = 0; i < map_.tables(); ++i) {
    if (!map_.table_is_sound(i)) {
      corrupt("table-offset", header.directory * kSectorBytes + i * 4,
              "grain table " + std::to_string(i) + " lies past the end of the file, or over other metadata");
    }
    if (map_.has_redundant() && !map_.redundant_is_sound(i)) {
      corrupt("redundant-table-offset", header.redundant_directory * kSectorBytes + i * 4,
              "redundant grain table " + std::to_string(i) + " lies past the end of the file, or over other metadata");
    }
  }
  return {};
}

bool Surveyor::is_sound(std::uint64_t grain, std::uint32_t entry) const {
  if (entry == kUnallocatedGrain) return true;
  if (entry == kZeroedGrain && map_.header().has(kFlagZeroedGrains)) return true;
  return map_.may_hold_data(entry, map_.grain_sectors(grain));
}

Status Surveyor::walk_table(std::uint64_t index) {
  const std::uint64_t first = index * kTableEntries;
  const std::uint64_t grains = map_.header().geometry.grains();
  const std::uint64_t shown = div_round_up(map_.bytes(), map_.grain_bytes());
  const std::uint64_t count = std::min<std::uint64_t>(kTableEntries, std::min(grains, shown) - std::min(shown, first));
  if (report_ != nullptr) report_->total_clusters += count;
  if (map_.table_sector(index) == 0 || !map_.table_is_sound(index)) return {};
  const std::uint64_t sector = map_.table_sector(index);
  const std::shared_ptr<GrainTable> table = TRY(map_.read_table(sector));
  std::shared_ptr<GrainTable> redundant;
  if (map_.redundant_is_sound(index) && map_.redundant_sector(index) != 0) {
    redundant = TRY(map_.read_table(map_.redundant_sector(index)));
  }
  bool table_changed = false;
  bool redundant_changed = false;
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint64_t entry_at = sector * kSectorBytes + i * 4;
    std::uint32_t entry = table->entries[i];
    if (redundant && redundant->entries[i] != entry) {
      std::uint32_t other = redundant->entries[i];
      if (compare(first + i, entry, other, entry_at)) {
        table_changed |= entry != table->entries[i];
        redundant_changed |= other != redundant->entries[i];
        table->entries[i] = entry;
        redundant->entries[i] = other;
      }
    }
    visit(first + i, entry, entry_at);
  }
  const auto write = [&](const GrainTable& changed, std::uint64_t at) {
    std::array<std::byte, kTableBytes> raw;
    for (std::size_t i = 0; i < kTableEntries; ++i) store_le32(raw.data() + i * 4, changed.entries[i]);
    return map_.file().write_at(at * kSectorBytes, raw);
  };
  if (table_changed) TRY(write(*table, sector));
  if (redundant_changed) TRY(write(*redundant, map_.redundant_sector(index)));
  return {};
}

// Writes go to the table first, so a redundant one that is behind is what a crash leaves: harmless, and mended by the
// next write. Two that name different places cannot both be right; the one that can be followed is.
bool Surveyor::compare(std::uint64_t grain, std::uint32_t& entry, std::uint32_t& redundant, std::uint64_t entry_at) {
  const bool sound = is_sound(grain, entry);
  const bool redundant_sound = is_sound(grain, redundant);
  const bool repairs = repair_ == Repair::kAll;
  const std::string which = "grain " + std::to_string(grain);
  if (!sound && redundant_sound && redundant != kUnallocatedGrain) {
    if (repairs) entry = redundant;
    corrupt("table-differs", entry_at, which + ": the grain table is wrong, the redundant one is not", repairs);
    return repairs;
  }
  if (!sound) return false;  // visit() says so
  if (redundant == kUnallocatedGrain) {
    if (report_ == nullptr) return false;
    const bool fixes = repair_ != Repair::kNone;
    ++(fixes ? report_->leaks_fixed : report_->leaks);
    report_->note("redundant-table-behind", entry_at, which + ": the redundant grain table lacks it");
    if (fixes) redundant = entry;
    return fixes;
  }
  // Which of two is right where both could be, or the table has nothing, nobody can tell: what guests read stays, and
  // where that is nothing the redundant entry stays too, as the last trace of the grain.
  const bool fixes = repairs && entry != kUnallocatedGrain;
  if (report_ != nullptr) corrupt("redundant-table-differs", entry_at, which + ": the two grain tables differ", fixes);
  if (fixes) redundant = entry;
  return fixes;
}

void Surveyor::visit(std::uint64_t grain, std::uint32_t entry, std::uint64_t entry_at) {
  if (entry == kUnallocatedGrain || (entry == kZeroedGrain && map_.header().has(kFlagZeroedGrains))) return;
  const std::string which = "grain " + std::to_string(grain);
  if (std::uint64_t{entry} * kSectorBytes >= map_.file_bytes()) {
    return corrupt("offset-past-end", entry_at, which + " lies past the end of the file");
  }
  if (!map_.may_hold_data(entry, map_.grain_sectors(grain))) {
    return corrupt("grain-over-metadata", entry_at, which + " lies over metadata");
  }
  if (!phase_) phase_ = entry % grain_sectors();
  if (entry % grain_sectors() != *phase_) {
    return corrupt("grain-alignment", entry_at, which + " does not begin where grains of this file do");
  }
  const std::uint64_t slot = entry / grain_sectors();
  if (used_[slot]) return corrupt("grain-overlap", entry_at, which + " lies where another grain does");
  used_[slot] = true;
  ++used_count_;
  last_slot_end_ = std::max(last_slot_end_, entry + grain_sectors());
  if (report_ == nullptr) return;
  ++report_->allocated_clusters;
  if (previous_ != 0 && entry != previous_ + grain_sectors()) ++report_->fragmented_clusters;
  previous_ = entry;
}

// Slots behind the metadata that no entry leads to. The format has no list of them: only those at the end can go.
Status Surveyor::settle_leaks() {
  const std::uint64_t grain = grain_sectors();
  const std::uint64_t first = div_round_up(std::max(map_.metadata_end(), survey_.phase) - survey_.phase, grain);
  const std::uint64_t slots = file_sectors() > survey_.phase ? (file_sectors() - survey_.phase) / grain : 0;
  std::uint64_t unused = 0;
  for (std::uint64_t slot = first; slot < slots; ++slot) unused += used_[slot] ? 0 : 1;
  report_->image_end_offset = std::max(report_->image_end_offset, survey_.data_end * kSectorBytes);
  if (unused == 0) return {};
  const std::uint64_t kept = std::max(
      first, last_slot_end_ > survey_.phase ? div_round_up(last_slot_end_ - survey_.phase, grain) : std::uint64_t{0});
  const std::uint64_t trailing = slots > kept ? slots - kept : 0;
  // Nothing is cut where it is not certain that every grain was found.
  if (repair_ != Repair::kNone && survey_.damage.empty() && trailing != 0) {
    const std::uint64_t new_end = (survey_.phase + kept * grain) * kSectorBytes;
    TRY(map_.file().truncate(new_end));
    map_.set_file_bytes(new_end);
    report_->leaks_fixed += trailing;
    unused -= trailing;
  }
  if (unused == 0) return {};
  report_->leaks += unused;
  report_->note("leaked-grain", survey_.data_end * kSectorBytes,
                std::to_string(unused) + " grains of the file belong to no part of the disk");
  return {};
}

}  // namespace

Result<Survey> survey_grains(GrainMap& map, Repair repair, CheckReport* report, ProgressSink& progress,
                             const CancelToken& cancel) {
  Survey survey = TRY(Surveyor(map, repair, report).walk(progress, cancel));
  if (repair == Repair::kNone) return survey;
  TRY(map.file().sync());
  map.forget_tables();
  return survey;
}

}  // namespace sluicebox::image::vmdk
