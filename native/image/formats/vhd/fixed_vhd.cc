#include "image/formats/vhd/fixed_vhd.h"

#include <algorithm>
#include <vector>

#include "image/block_range.h"
#include "image/formats/vhd/describe.h"

namespace sluicebox::image::vhd {

namespace {

constexpr std::uint64_t kFixedZeroChunk = 1u << 20;

class FixedVhd final : public Block {
 public:
  FixedVhd(std::unique_ptr<ImageState> image, bool writable) : image_(std::move(image)), writable_(writable) {}

  DiskFormat format() const override { return DiskFormat::kVhd; }
  std::uint64_t size() const override { return image_->disk_bytes; }
  std::uint64_t allocation_unit() const override { return kSectorBytes; }
  LayerInfo info() const override { return describe_vhd(*image_); }
  std::string identity() const override { return guid_text(image_->footer.id, /*little_endian=*/false); }

  Status read(std::uint64_t offset, MutableBytes out) override {
    TRY(check_range(offset, out.size(), size()));
    return read_exact(image_->file, offset, out, "the disk");
  }

  Result<BlockStatus> status(std::uint64_t offset, std::uint64_t length) override {
    if (offset >= size() || length == 0) {
      return Error(ErrorCode::kInvalidArgument, "the range lies outside the disk");
    }
    const FileExtent extent = TRY(image_->file.extent_at(offset, std::min(length, size() - offset)));
    BlockStatus status;
    status.mapping = extent.data ? Mapping::kData : Mapping::kZero;
    status.length = extent.length;
    if (extent.data) status.host_offset = offset;
    return status;
  }

  Status write(std::uint64_t offset, Bytes data) override {
    TRY(writable(offset, data.size()));
    return image_->file.write_at(offset, data);
  }

  Status write_zeros(std::uint64_t offset, std::uint64_t length) override {
    TRY(writable(offset, length));
    const std::vector<std::byte> zeros(std::min(length, kFixedZeroChunk));
    for (std::uint64_t done = 0; done < length;) {
      const FileExtent extent = TRY(image_->file.extent_at(offset + done, length - done));
      const std::uint64_t part = extent.data ? std::min(extent.length, kFixedZeroChunk) : extent.length;
      if (extent.data) TRY(image_->file.write_at(offset + done, Bytes(zeros).first(part)));
      done += part;
    }
    return {};
  }

  Status flush() override { return image_->file.sync(); }

  Result<CheckReport> check(Repair, ProgressSink&, const CancelToken&) override {
    // Its footer was read and judged when it was opened, and there is nothing else to look at.
    CheckReport report;
    report.total_clusters = report.allocated_clusters = size() / kSectorBytes;
    report.image_end_offset = image_->ends.file_bytes;
    return report;
  }

 private:
  Status writable(std::uint64_t offset, std::uint64_t length) const {
    TRY(check_range(offset, length, size()));
    TRY(check_whole_units(offset, length, kSectorBytes, size()));
    if (writable_) return {};
    return Error(ErrorCode::kInvalidArgument, "the image was not opened for writing").on(image_->file.path());
  }

  std::unique_ptr<ImageState> image_;
  const bool writable_;
};

}  // namespace

std::unique_ptr<Block> make_fixed_vhd(std::unique_ptr<ImageState> image, bool writable) {
  return std::make_unique<FixedVhd>(std::move(image), writable);
}

}  // namespace sluicebox::image::vhd
