// A sparse file as a part of a VMDK disk: grains are added at its end, and tables change when it is flushed.
//
// The order of writes: grain data, sync, grain tables, sync, redundant tables, sync. A crash leaves grains that nothing
// refers to, or redundant tables that are behind, and nothing worse. Only what overwrites a grain that is there goes in
// place, where a crash may leave old and new bytes mixed within the written range, as on any disk.
#include <algorithm>
#include <vector>

#include "image/formats/vmdk/extent.h"
#include "image/formats/vmdk/grain_map.h"
#include "image/formats/vmdk/survey.h"
#include "image/printable.h"

namespace sluicebox::image::vmdk {

namespace {

// As many changed tables as wait for a flush of their own: 8 MiB of them.
constexpr std::size_t kMostChangedTables = 4096;

class SparseExtent final : public Extent {
 public:
  SparseExtent(std::unique_ptr<GrainMap> map, bool salvage)
      : map_(std::move(map)), salvage_(salvage), flushed_bytes_(map_->file_bytes()) {}

  std::uint64_t unit() const override { return map_->grain_bytes(); }
  const File* file() const override { return &map_->file(); }

  Status read(std::uint64_t offset, MutableBytes out) override;
  Result<BlockStatus> status(std::uint64_t offset, std::uint64_t length) override;
  Status write(std::uint64_t offset, Bytes data) override;
  Status write_zeros(std::uint64_t offset, std::uint64_t length) override;
  Status may_be_written() const override;
  Status prepare(ProgressSink& progress, const CancelToken& cancel) override;
  Status flush() override;
  void abandon() override;
  Status make_empty() override;
  Status check(Repair repair, CheckReport& report, ProgressSink& progress, const CancelToken& cancel) override;

 private:
  Status prepare_silently();
  Status write_grain(std::uint64_t offset, Bytes data);
  Result<std::uint32_t> append_grain(Bytes data);

  const std::unique_ptr<GrainMap> map_;
  const bool salvage_;
  bool surveyed_ = false;
  bool unsynced_ = false;        // data was written since the last flush
  std::uint64_t next_ = 0;       // the sector of the next new grain
  std::uint64_t flushed_bytes_;  // the file's length when it was flushed last
};

Status SparseExtent::read(std::uint64_t offset, MutableBytes out) {
  while (!out.empty()) {
    const GrainRun run = TRY(map_->find(offset, out.size()));
    const MutableBytes part = out.first(run.length);
    if (run.kind == GrainKind::kData) {
      // The last grain may be cut by the end of the file.
      TRY(salvage_ ? read_exact(map_->file(), run.host, part, "a grain") : read_padded(map_->file(), run.host, part));
    } else {
      std::memset(part.data(), 0, part.size());
    }
    offset += run.length;
    out = out.subspan(run.length);
  }
  return {};
}

Result<BlockStatus> SparseExtent::status(std::uint64_t offset, std::uint64_t length) {
  const GrainRun run = TRY(map_->find(offset, length));
  BlockStatus status;
  status.length = run.length;
  if (run.kind == GrainKind::kZero) status.mapping = Mapping::kZero;
  if (run.kind == GrainKind::kData) {
    status.mapping = Mapping::kData;
    status.host_offset = run.host;
  }
  return status;
}

Status SparseExtent::may_be_written() const {
  const std::string& path = map_->file().path();
  if (!map_->damage().empty()) {
    return map_->corrupt(printable(path) + " cannot be written: " + map_->damage(), 0);
  }
  if (map_->header().version < 3) return {};
  return Error(ErrorCode::kUnsupported,
               printable(path) + " tracks its changes (version 3), which writing would make wrong")
      .on(path);
}

Status SparseExtent::prepare(ProgressSink& progress, const CancelToken& cancel) {
  if (surveyed_) return {};
  TRY(may_be_written());
  const Survey survey = TRY(survey_grains(*map_, Repair::kNone, nullptr, progress, cancel));
  if (!survey.damage.empty()) {
    return map_->corrupt(printable(map_->file().path()) + " cannot be written: " + survey.damage, 0)
        .advise("run check with repair");
  }
  const std::uint64_t grain = map_->header().geometry.grain;
  const std::uint64_t end = std::max(survey.data_end, div_round_up(map_->file_bytes(), kSectorBytes));
  next_ = end + (grain + survey.phase - end % grain) % grain;
  surveyed_ = true;
  return {};
}

Status SparseExtent::prepare_silently() {
  if (surveyed_) return {};
  NoProgress silent;
  const CancelToken never;
  return prepare(silent, never);
}

Status SparseExtent::write(std::uint64_t offset, Bytes data) {
  TRY(prepare_silently());
  const std::uint64_t grain = map_->grain_bytes();
  while (!data.empty()) {
    const std::uint64_t length = std::min<std::uint64_t>(data.size(), grain - offset % grain);
    TRY(write_grain(offset, data.first(length)));
    offset += length;
    data = data.subspan(length);
  }
  return {};
}

// All of a grain, but for what the end of the disk cuts off.
Status SparseExtent::write_grain(std::uint64_t offset, Bytes data) {
  const GrainRun run = TRY(map_->find(offset, data.size()));
  unsynced_ = true;
  if (run.kind == GrainKind::kData) {
    TRY(map_->file().write_at(run.host, data));
    map_->set_file_bytes(std::max(map_->file_bytes(), run.host + data.size()));
    return {};
  }
  const std::uint32_t sector = TRY(append_grain(data));
  TRY(map_->set_entry(offset / map_->grain_bytes(), sector));
  return map_->changed_tables() < kMostChangedTables ? ok_status() : flush();
}

Result<std::uint32_t> SparseExtent::append_grain(Bytes data) {
  const std::uint64_t grain = map_->header().geometry.grain;
  if (next_ > kMaxFileSectors - grain) {
    return Error(ErrorCode::kNoSpace,
                 printable(map_->file().path()) + " would grow beyond 2 TiB, where no table reaches")
        .on(map_->file().path());
  }
  const std::uint64_t offset = next_ * kSectorBytes;
  TRY(map_->file().write_at(offset, data));
  if (data.size() < map_->grain_bytes()) {
    const std::vector<std::byte> rest(map_->grain_bytes() - data.size());
    TRY(map_->file().write_at(offset + data.size(), rest));
  }
  const auto sector = static_cast<std::uint32_t>(next_);
  next_ += grain;
  map_->set_file_bytes(next_ * kSectorBytes);
  return sector;
}

Status SparseExtent::write_zeros(std::uint64_t offset, std::uint64_t length) {
  TRY(prepare_silently());
  const std::uint64_t grain = map_->grain_bytes();
  std::vector<std::byte> zeros;
  while (length > 0) {
    const GrainRun run = TRY(map_->find(offset, length));
    // What is not allocated reads as zeros only as long as nothing stands behind it.
    const std::uint64_t done = run.kind == GrainKind::kZero ? run.length : std::min(length, grain - offset % grain);
    if (run.kind == GrainKind::kUnallocated && map_->header().has(kFlagZeroedGrains)) {
      TRY(map_->set_entry(offset / grain, kZeroedGrain));
      unsynced_ = true;
      if (map_->changed_tables() >= kMostChangedTables) TRY(flush());
    } else if (run.kind != GrainKind::kZero) {
      zeros.resize(grain);
      TRY(write_grain(offset, Bytes(zeros).first(done)));
    }
    offset += done;
    length -= done;
  }
  return {};
}

Status SparseExtent::flush() {
  if (!unsynced_ && !map_->has_changes()) return map_->file().sync();
  TRY(map_->file().sync());
  TRY(map_->flush_tables());
  unsynced_ = false;
  flushed_bytes_ = map_->file_bytes();
  return {};
}

void SparseExtent::abandon() {
  map_->forget_changes();
  if (map_->file_bytes() == flushed_bytes_) return;
  if (!map_->file().truncate(flushed_bytes_).ok()) return;  // space that nothing refers to, until it is checked
  map_->set_file_bytes(flushed_bytes_);
  surveyed_ = false;
}

Status SparseExtent::make_empty() {
  TRY(prepare_silently());
  TRY(flush());
  TRY(map_->clear_tables());
  const std::uint64_t grain = map_->header().geometry.grain;
  const std::uint64_t end = div_round_up(map_->metadata_end(), grain) * grain;
  if (end * kSectorBytes < map_->file_bytes()) {
    TRY(map_->file().truncate(end * kSectorBytes));
    map_->set_file_bytes(end * kSectorBytes);
    TRY(map_->file().sync());
  }
  flushed_bytes_ = map_->file_bytes();
  surveyed_ = false;
  return {};
}

Status SparseExtent::check(Repair repair, CheckReport& report, ProgressSink& progress, const CancelToken& cancel) {
  TRY(survey_grains(*map_, repair, &report, progress, cancel));
  surveyed_ = false;
  flushed_bytes_ = map_->file_bytes();
  return {};
}

}  // namespace

Result<std::unique_ptr<Extent>> open_sparse(File& file, const SparseHeader& header, const SparseOptions& options) {
  std::unique_ptr<GrainMap> map = TRY(GrainMap::load(file, header, options.sectors, options.salvage, options.budget));
  return std::unique_ptr<Extent>(std::make_unique<SparseExtent>(std::move(map), options.salvage));
}

}  // namespace sluicebox::image::vmdk
