#include "image/formats/vmdk/stream_writer.h"

#include <libdeflate.h>

#include <algorithm>

#include "image/formats/vmdk/stream_layout.h"
#include "image/printable.h"

namespace sluicebox::image::vmdk {

namespace {

constexpr int kLevel = 6;  // as other tools have it by default

}  // namespace

GrainPacker::GrainPacker(std::uint64_t grain_bytes)
    : grain_bytes_(grain_bytes), compressor_(libdeflate_alloc_compressor(kLevel)) {}
GrainPacker::~GrainPacker() { libdeflate_free_compressor(compressor_); }

Result<std::vector<std::byte>> GrainPacker::pack(std::uint64_t offset, Bytes data) {
  if (data.empty() || data.size() > grain_bytes_ || offset % grain_bytes_ != 0) {
    return Error(ErrorCode::kInvalidArgument, "a grain is written whole");
  }
  if (compressor_ == nullptr) return Error(ErrorCode::kOutOfMemory, "no memory to compress with");
  if (data.size() < grain_bytes_) {
    padded_.assign(data.begin(), data.end());
    padded_.resize(grain_bytes_);
    data = padded_;
  }
  std::vector<std::byte> packed(kGrainMarkerBytes + libdeflate_zlib_compress_bound(compressor_, data.size()));
  const std::size_t length = libdeflate_zlib_compress(
      compressor_, data.data(), data.size(), packed.data() + kGrainMarkerBytes, packed.size() - kGrainMarkerBytes);
  if (length == 0) return Error(ErrorCode::kInternal, "a grain did not compress within its bound");
  store_le64(packed.data(), offset / kSectorBytes);
  store_le32(packed.data() + 8, static_cast<std::uint32_t>(length));
  packed.resize(kGrainMarkerBytes + length);
  packed.resize(div_round_up(packed.size(), kSectorBytes) * kSectorBytes);
  return packed;
}

StreamWriter::StreamWriter(File& file, const SparseHeader& header)
    : file_(file),
      header_(header),
      packer_(header.geometry.grain_bytes()),
      next_sector_(header.overhead),
      directory_(header.geometry.tables()) {}

Result<std::unique_ptr<StreamWriter>> StreamWriter::begin(File& file, const PlanOptions& options) {
  if (options.subformat != Subformat::kStreamOptimized) {
    return Error(ErrorCode::kInvalidArgument, "a stream is written of streamOptimized images only");
  }
  // The empty image begins as a full one does.
  std::vector<std::byte> scratch(TRY(plan_scratch_size(options)));
  const Plan plan = TRY(plan_vmdk(options, scratch));
  const SparseHeader header =
      stream_header({.capacity = options.virtual_size / kSectorBytes, .grain = options.grain_size / kSectorBytes});
  for (const ImagePlanWrite& write : plan.image.all()) {
    if (write.offset < header.overhead * kSectorBytes) TRY(file.write_at(write.offset, write.bytes));
  }
  return std::unique_ptr<StreamWriter>(new StreamWriter(file, header));
}

Error StreamWriter::refuse(std::string text) const {
  return Error(ErrorCode::kInvalidArgument, std::move(text)).on(file_.path());
}

Status StreamWriter::write(std::uint64_t offset, Bytes data) { return append(offset, TRY(packer_.pack(offset, data))); }

Status StreamWriter::append(std::uint64_t offset, Bytes packed) {
  const std::uint64_t grain = offset / grain_bytes();
  if (finished_) return refuse("the stream is finished");
  if (offset % grain_bytes() != 0 || grain < next_grain_ || grain >= header_.geometry.grains()) {
    return refuse("grains of a stream are written once, in ascending order");
  }
  if (grain / kTableEntries != table_index_) TRY(close_table());
  table_index_ = grain / kTableEntries;
  table_used_ = true;
  table_[grain % kTableEntries] = static_cast<std::uint32_t>(next_sector_);
  next_grain_ = grain + 1;
  return put(packed);
}

Status StreamWriter::put(Bytes sectors) {
  const std::uint64_t count = sectors.size() / kSectorBytes;
  if (next_sector_ + count > kMaxFileSectors) {
    return Error(ErrorCode::kNoSpace, printable(file_.path()) + " would grow beyond 2 TiB, where no table reaches")
        .on(file_.path());
  }
  TRY(file_.write_at(next_sector_ * kSectorBytes, sectors));
  next_sector_ += count;
  return {};
}

Status StreamWriter::close_table() {
  if (!table_used_) return {};
  std::array<std::byte, kTableBytes> raw;
  for (std::size_t i = 0; i < kTableEntries; ++i) store_le32(raw.data() + i * 4, table_[i]);
  TRY(put(marker_sector(kTableSectors, MarkerType::kTable)));
  directory_[table_index_] = static_cast<std::uint32_t>(next_sector_);
  TRY(put(raw));
  table_ = {};
  table_used_ = false;
  return {};
}

Status StreamWriter::finish() {
  if (finished_) return refuse("the stream is finished");
  TRY(close_table());
  const std::uint64_t sectors = header_.geometry.directory_sectors();
  std::vector<std::byte> raw(sectors * kSectorBytes);
  for (std::size_t i = 0; i < directory_.size(); ++i) store_le32(raw.data() + i * 4, directory_[i]);
  TRY(put(marker_sector(sectors, MarkerType::kDirectory)));
  SparseHeader footer = header_;
  footer.directory = next_sector_;
  TRY(put(raw));
  TRY(put(marker_sector(1, MarkerType::kFooter)));
  TRY(put(serialize_header(footer)));
  TRY(put(marker_sector(0, MarkerType::kEndOfStream)));
  finished_ = true;
  return file_.sync();
}

}  // namespace sluicebox::image::vmdk
