#include "image/formats/vhd/fixed_vhd.h"

#include <algorithm>

#include "base/checked.h"
#include "image/block_range.h"
#include "image/formats/vhd/describe.h"

namespace sluicebox::image::vhd {

namespace {

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
    return image::write_zeros(image_->file, offset, length);
  }

  Status flush() override { return image_->file.sync(); }

  Status can_resize(std::uint64_t size) const override { return image_->can_have(size); }
  Status make_room(std::uint64_t size) override;
  Status resize(std::uint64_t size) override;
  void abandon() override;

  Result<CheckReport> check(Repair repair, ProgressSink&, const CancelToken&) override;

 private:
  Status writable(std::uint64_t offset, std::uint64_t length) const {
    const std::uint64_t end = std::max(size(), room_);
    TRY(check_range(offset, length, end));
    TRY(check_whole_units(offset, length, kSectorBytes, end));
    if (writable_) return {};
    return Error(ErrorCode::kInvalidArgument, "the image was not opened for writing").on(image_->file.path());
  }

  Status put_footer(Footer footer, std::uint64_t offset);
  Status end_file_at(std::uint64_t end);
  std::uint64_t home_of_footer() const;

  std::unique_ptr<ImageState> image_;
  const bool writable_;
  std::uint64_t room_ = 0;         // how large the disk is to be; 0: as it is
  std::uint64_t former_end_ = 0;   // where the footer was before that
  bool has_moved_footer_ = false;  // from there, for that room
};

// A sector, written whole or not at all; durable on return. Where it is not at the disk's end it says that it belongs
// there, so that the file is known for what it is.
Status FixedVhd::put_footer(Footer footer, std::uint64_t offset) {
  footer.stands_at = footer.current_size == offset ? 0 : offset;
  serialize_footer(footer);
  TRY(image_->file.write_at(offset, footer.raw));
  TRY(image_->file.sync());
  image_->footer = footer;
  image_->ends.end = footer;
  return {};
}

// The footer there first, and then the file: until it is short, the one behind counts.
Status FixedVhd::end_file_at(std::uint64_t end) {
  TRY(put_footer(image_->footer, end));
  TRY(image_->file.truncate(end + kFooterBytes));
  TRY(image_->file.sync());
  image_->ends.end_offset = end;
  image_->ends.file_bytes = end + kFooterBytes;
  return {};
}

// The footer goes first, and still tells of the old size: what was its place and all that is gained are zeros before
// they are the disk's.
Status FixedVhd::make_room(std::uint64_t size) {
  TRY(can_resize(size));
  TRY(writable(0, 0));
  const std::uint64_t present = this->size();
  if (size <= std::max(present, room_)) return {};
  Ends& ends = image_->ends;
  if (size > ends.end_offset) {
    Status moved = put_footer(image_->footer, size);
    // A part of a footer at the end would leave the file without any.
    if (!moved.ok()) (void)image_->file.truncate(ends.file_bytes);
    TRY(std::move(moved));
    if (!has_moved_footer_) former_end_ = ends.end_offset;
    has_moved_footer_ = true;
    ends.end_offset = size;
    ends.file_bytes = size + kFooterBytes;
  }
  room_ = size;
  return image::write_zeros(image_->file, present, size - present);
}

// One sector is the change. A disk that is smaller then has its footer moved to its end.
Status FixedVhd::resize(std::uint64_t size) {
  TRY(can_resize(size));
  TRY(writable(0, 0));
  TRY(make_room(size));
  TRY(flush());
  Footer footer = image_->footer;
  footer.set_disk_bytes(size);
  room_ = 0;
  has_moved_footer_ = false;
  TRY(put_footer(footer, image_->ends.end_offset));
  image_->disk_bytes = size;
  return size == image_->ends.end_offset ? ok_status() : end_file_at(size);
}

// Where what others mean by the disk ends as well.
std::uint64_t FixedVhd::home_of_footer() const {
  return std::max(size(), checked_align_up(image_->footer.current_size, kSectorBytes).value_or(size()));
}

// Its footer was read and judged when it was opened; a resize that was cut short left it behind more than the disk.
Result<CheckReport> FixedVhd::check(Repair repair, ProgressSink&, const CancelToken&) {
  CheckReport report;
  report.total_clusters = report.allocated_clusters = size() / kSectorBytes;
  const Ends& ends = image_->ends;
  if (image_->footer.stands_at == ends.end_offset && home_of_footer() < ends.end_offset && room_ == 0) {
    ++report.leaks;
    report.note("footer-astray", ends.end_offset, "the footer lies behind more than the disk, as a resize left it");
    if (repair != Repair::kNone) {
      TRY(writable(0, 0));
      TRY(end_file_at(home_of_footer()));
      ++report.leaks_fixed;
    }
  }
  report.image_end_offset = ends.file_bytes;
  return report;
}

// As far as that goes: what stays behind is space between the disk and its footer.
void FixedVhd::abandon() {
  if (has_moved_footer_) (void)end_file_at(former_end_);
  has_moved_footer_ = false;
  room_ = 0;
}

}  // namespace

std::unique_ptr<Block> make_fixed_vhd(std::unique_ptr<ImageState> image, bool writable) {
  return std::make_unique<FixedVhd>(std::move(image), writable);
}

}  // namespace sluicebox::image::vhd
