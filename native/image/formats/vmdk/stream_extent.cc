// A streamOptimized file as a part of a VMDK disk: grains are compressed, and were written once.
#include <libdeflate.h>

#include <algorithm>
#include <vector>

#include "image/formats/vmdk/extent.h"
#include "image/formats/vmdk/grain_map.h"
#include "image/formats/vmdk/survey.h"
#include "image/printable.h"

namespace sluicebox::image::vmdk {

namespace {

// Where the stream of a grain lies.
struct Packed {
  std::uint64_t host = 0;  // bytes
  std::uint32_t length = 0;
  std::uint64_t end() const { return host + length; }
};

class GrainInflater {
 public:
  GrainInflater() : decompressor_(libdeflate_alloc_decompressor()) {}
  ~GrainInflater() { libdeflate_free_decompressor(decompressor_); }
  GrainInflater(const GrainInflater&) = delete;
  GrainInflater& operator=(const GrainInflater&) = delete;

  // How many bytes the zlib stream gave; nothing where it is none, or more than `out` holds.
  std::optional<std::size_t> inflate(Bytes stream, MutableBytes out) {
    std::size_t written = 0;
    if (decompressor_ == nullptr) return std::nullopt;
    const auto outcome =
        libdeflate_zlib_decompress(decompressor_, stream.data(), stream.size(), out.data(), out.size(), &written);
    if (outcome != LIBDEFLATE_SUCCESS) return std::nullopt;
    return written;
  }

 private:
  libdeflate_decompressor* decompressor_;
};

class StreamExtent final : public Extent {
 public:
  explicit StreamExtent(std::unique_ptr<GrainMap> map) : map_(std::move(map)) {}

  std::uint64_t unit() const override { return map_->grain_bytes(); }
  bool compressed() const override { return true; }
  const File* file() const override { return &map_->file(); }

  Status read(std::uint64_t offset, MutableBytes out) override;
  Result<BlockStatus> status(std::uint64_t offset, std::uint64_t length) override;
  Status write(std::uint64_t, Bytes) override { return may_be_written(); }
  Status write_zeros(std::uint64_t, std::uint64_t) override { return may_be_written(); }
  Status may_be_written() const override {
    return Error(ErrorCode::kUnsupported, printable(map_->file().path()) + " is streamOptimized, which is written once")
        .on(map_->file().path())
        .advise("put an overlay over it, or convert it");
  }
  Status flush() override { return {}; }
  Status make_empty() override { return may_be_written(); }
  Status check(Repair repair, CheckReport& report, ProgressSink& progress, const CancelToken& cancel) override;

 private:
  Result<Packed> locate(std::uint64_t grain, std::uint64_t host) const;
  Status inflate(std::uint64_t grain, std::uint64_t host, MutableBytes out, GrainInflater& inflater);

  const std::unique_ptr<GrainMap> map_;
};

// The marker in front of the grain says which one it is and how long: both must fit.
Result<Packed> StreamExtent::locate(std::uint64_t grain, std::uint64_t host) const {
  std::array<std::byte, kGrainMarkerBytes> marker;
  TRY(read_exact(map_->file(), host, marker, "a grain's marker"));
  if (load_le64(marker.data()) != grain * map_->header().geometry.grain) {
    return map_->corrupt("a compressed grain is another one than its table says", host);
  }
  const Packed packed{.host = host + kGrainMarkerBytes, .length = load_le32(marker.data() + 8)};
  // What does not shrink grows by some bytes; no writer has a reason to store more.
  const std::uint64_t most = map_->grain_bytes() + map_->grain_bytes() / 8 + 1024;
  if (packed.length == 0 || packed.length > most || packed.end() > map_->file_bytes()) {
    return map_->corrupt("a compressed grain has an impossible length", host);
  }
  if (map_->is_metadata(host / kSectorBytes, div_round_up(packed.end(), kSectorBytes))) {
    return map_->corrupt("a compressed grain lies over metadata", host);
  }
  return packed;
}

Status StreamExtent::inflate(std::uint64_t grain, std::uint64_t host, MutableBytes out, GrainInflater& inflater) {
  const Packed packed = TRY(locate(grain, host));
  std::vector<std::byte> stream(packed.length);
  TRY(read_exact(map_->file(), packed.host, stream, "a compressed grain"));
  const auto written = inflater.inflate(stream, out);
  // The last grain may hold what the disk has of it, and no more.
  if (!written || *written < map_->grain_sectors(grain) * kSectorBytes) {
    return map_->corrupt("a compressed grain does not inflate to one grain", host);
  }
  return {};
}

Status StreamExtent::read(std::uint64_t offset, MutableBytes out) {
  std::optional<GrainInflater> inflater;
  std::vector<std::byte> grain;
  while (!out.empty()) {
    const GrainRun run = TRY(map_->find(offset, out.size()));
    const MutableBytes part = out.first(run.length);
    if (run.kind == GrainKind::kData) {
      if (!inflater) inflater.emplace();
      const std::uint64_t index = offset / map_->grain_bytes();
      if (part.size() == map_->grain_bytes()) {
        TRY(inflate(index, run.host, part, *inflater));
      } else {
        grain.resize(map_->grain_bytes());
        TRY(inflate(index, run.host, grain, *inflater));
        std::memcpy(part.data(), grain.data() + offset % map_->grain_bytes(), part.size());
      }
    } else {
      std::memset(part.data(), 0, part.size());
    }
    offset += run.length;
    out = out.subspan(run.length);
  }
  return {};
}

Result<BlockStatus> StreamExtent::status(std::uint64_t offset, std::uint64_t length) {
  const GrainRun first = TRY(map_->find(offset, length));
  BlockStatus status;
  status.length = first.length;
  if (first.kind == GrainKind::kZero) status.mapping = Mapping::kZero;
  if (first.kind != GrainKind::kData) return status;
  status.mapping = Mapping::kData;
  status.compressed = true;
  while (status.length < length) {
    const auto next = map_->find(offset + status.length, length - status.length);
    if (!next.ok() || next.value().kind != GrainKind::kData) break;
    status.length += next.value().length;
  }
  return status;
}

// Each grain's marker, and that no two lie over one another. Nothing is repaired: what a stream was made from is
// elsewhere.
Status StreamExtent::check(Repair, CheckReport& report, ProgressSink& progress, const CancelToken& cancel) {
  const std::uint64_t disk = map_->bytes();
  const std::uint64_t grain_bytes = map_->grain_bytes();
  const auto corrupt = [&](const char* kind, std::uint64_t offset, std::string message) {
    ++report.corruptions;
    report.note(kind, offset, std::move(message));
  };
  std::vector<Packed> grains;
  MetadataShare share(map_->budget());
  report.total_clusters += div_round_up(disk, grain_bytes);
  for (std::uint64_t offset = 0; offset < disk;) {
    if (offset % (grain_bytes * kTableEntries) == 0) {
      TRY(cancel.check());
      progress.report({.phase = "check", .done = offset, .total = disk, .unit = ProgressUnit::kBytes});
    }
    const std::uint64_t table_end = (offset / grain_bytes / kTableEntries + 1) * kTableEntries * grain_bytes;
    const Result<GrainRun> run = map_->find(offset, std::min(disk, table_end) - offset);
    if (!run.ok()) {
      if (run.error().code != ErrorCode::kImageCorrupt) return run.error();
      const std::uint64_t index = offset / grain_bytes / kTableEntries;
      const bool whole_table = map_->table_sector(index) != 0 && !map_->table_is_sound(index);
      corrupt(whole_table ? "table-offset" : "grain-offset", run.error().offset.value_or(0), run.error().message);
      offset = whole_table ? table_end : offset + grain_bytes;
      continue;
    }
    if (run.value().kind == GrainKind::kData) {
      const Result<Packed> packed = locate(offset / grain_bytes, run.value().host);
      if (packed.ok()) {
        if (grains.size() % 4096 == 0) TRY(share.take(4096 * sizeof(Packed)));
        grains.push_back(packed.value());
        ++report.allocated_clusters;
        ++report.compressed_clusters;
      } else if (packed.error().code == ErrorCode::kImageCorrupt) {
        corrupt("grain-marker", run.value().host, packed.error().message);
      } else {
        return packed.error();
      }
    }
    offset += run.value().length;
  }
  std::ranges::sort(grains, {}, &Packed::host);
  for (std::size_t i = 1; i < grains.size(); ++i) {
    if (grains[i].host - kGrainMarkerBytes < grains[i - 1].end()) {
      corrupt("grain-overlap", grains[i].host, "two compressed grains lie over one another");
    }
  }
  report.image_end_offset = std::max(report.image_end_offset, map_->file_bytes());
  return {};
}

}  // namespace

Result<std::unique_ptr<Extent>> open_stream(File& file, const SparseHeader& header, const SparseOptions& options) {
  std::unique_ptr<GrainMap> map = TRY(GrainMap::load(file, header, options.sectors, options.salvage, options.budget));
  return std::unique_ptr<Extent>(std::make_unique<StreamExtent>(std::move(map)));
}

}  // namespace sluicebox::image::vmdk
