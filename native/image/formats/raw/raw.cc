#include "image/formats/raw/raw.h"

#include <algorithm>
#include <limits>

#include "base/checked.h"
#include "image/printable.h"

namespace sluicebox::image::raw {

namespace {

constexpr std::uint64_t kSector = 512;

class RawBlock final : public Block {
 public:
  RawBlock(File& file, std::uint64_t size, bool writable) : file_(file), size_(size), writable_(writable) {}

  DiskFormat format() const override { return DiskFormat::kRaw; }
  std::uint64_t size() const override { return size_; }
  std::uint64_t allocation_unit() const override { return kSector; }
  LayerInfo info() const override { return {}; }

  Status read(std::uint64_t offset, MutableBytes out) override {
    TRY(within_disk(offset, out.size(), "read"));
    // The last sector may be cut by the end of the file. Nothing else: a file that is shorter than it was has lost
    // bytes.
    const std::uint64_t sure = size_ - std::min(size_, kSector - 1);
    const MutableBytes first = out.first(std::min<std::uint64_t>(out.size(), sure - std::min(sure, offset)));
    if (TRY(file_.read_at(offset, first)) < first.size()) return cut(offset);
    return read_padded(file_, offset + first.size(), out.subspan(first.size()));
  }

  Result<BlockStatus> status(std::uint64_t offset, std::uint64_t length) override {
    TRY(within_disk(offset, 0, "examine"));
    const FileExtent extent = TRY(file_.extent_at(offset, std::min(length, size_ - offset)));
    // Past the end of a file there are no data either.
    if (!extent.data && TRY(file_.size()) + kSector <= size_) return cut(offset);
    BlockStatus status;
    status.mapping = extent.data ? Mapping::kData : Mapping::kZero;
    status.length = extent.length;
    status.host_offset = offset;
    return status;
  }

  Status write(std::uint64_t offset, Bytes data) override {
    TRY(require_writable());
    TRY(within_disk(offset, data.size(), "write"));
    return file_.write_at(offset, data);
  }

  Status write_zeros(std::uint64_t offset, std::uint64_t length) override {
    TRY(require_writable());
    TRY(within_disk(offset, length, "write"));
    return image::write_zeros(file_, offset, length);
  }

  Status flush() override { return file_.sync(); }

  Status can_resize(std::uint64_t size) const override {
    if (size <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) return {};
    return Error(ErrorCode::kInvalidArgument, "size: " + std::to_string(size) + " bytes are more than a file can hold");
  }
  Status resize(std::uint64_t size) override {
    TRY(require_writable());
    TRY(can_resize(size));
    TRY(file_.truncate(size));
    TRY(file_.sync());
    size_ = size;
    return {};
  }

 private:
  Status within_disk(std::uint64_t offset, std::uint64_t length, const char* verb) const {
    const auto end = checked_add(offset, length);
    if (end && *end <= size_ && (length != 0 || offset < size_ || size_ == 0)) return {};
    return Error(ErrorCode::kInternal, std::string("cannot ") + verb + " past the end of " + printable(file_.path()))
        .on(file_.path())
        .at(offset);
  }
  Error cut(std::uint64_t offset) const {
    return Error(ErrorCode::kIo, printable(file_.path()) + " is shorter than it was: another program cut it")
        .on(file_.path())
        .at(offset);
  }
  Status require_writable() const {
    if (writable_) return {};
    return Error(ErrorCode::kInternal, printable(file_.path()) + " was opened for reading").on(file_.path());
  }

  File& file_;
  std::uint64_t size_;
  const bool writable_;
};

}  // namespace

Result<std::unique_ptr<Block>> open_raw(File& file, bool writable) {
  const auto size = checked_align_up(TRY(file.size()), kSector);
  if (!size) return Error(ErrorCode::kImageFormat, printable(file.path()) + " is too long for a disk").on(file.path());
  return std::unique_ptr<Block>(std::make_unique<RawBlock>(file, *size, writable));
}

}  // namespace sluicebox::image::raw
