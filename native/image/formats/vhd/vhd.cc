#include "image/formats/vhd/vhd.h"

#include <algorithm>

#include "base/checked.h"
#include "image/block_range.h"
#include "image/formats/vhd/block_map.h"
#include "image/formats/vhd/check.h"
#include "image/formats/vhd/describe.h"
#include "image/formats/vhd/fixed_vhd.h"
#include "image/formats/vhd/image_state.h"
#include "image/formats/vhd/writer.h"
#include "image/printable.h"

namespace sluicebox::image::vhd {

namespace {

// Of a dynamic or a differencing one.
class DynamicVhd final : public Block {
 public:
  DynamicVhd(std::unique_ptr<ImageState> image, const OpenOptions& options)
      : image_(std::move(image)), info_only_(options.info_only), map_(*image_) {
    if (options.writable) writer_ = std::make_unique<Writer>(*image_, map_);
  }

  DiskFormat format() const override { return DiskFormat::kVhd; }
  std::uint64_t size() const override { return image_->disk_bytes; }
  std::uint64_t allocation_unit() const override { return kSectorBytes; }
  LayerInfo info() const override { return describe_vhd(*image_); }
  std::string identity() const override { return guid_text(image_->footer.id, /*little_endian=*/false); }
  std::optional<BackingReference> backing() const override;
  Status accepts_backing(const Block& below) const override;

  Status read(std::uint64_t offset, MutableBytes out) override;
  Result<BlockStatus> status(std::uint64_t offset, std::uint64_t length) override;
  Status write(std::uint64_t offset, Bytes data) override {
    TRY(writable(offset, data.size()));
    return writer_->write(offset, data);
  }
  Status write_zeros(std::uint64_t offset, std::uint64_t length) override {
    TRY(writable(offset, length));
    return writer_->write_zeros(offset, length);
  }
  Status flush() override { return writer_ ? writer_->flush() : ok_status(); }
  Status may_be_written(Writing what) const override;
  void abandon() override {
    if (writer_) writer_->abandon();
  }
  Status can_set_backing(const std::optional<BackingReference>& backing) const override;
  Status set_backing(const std::optional<BackingReference>& backing) override;
  Status can_resize(std::uint64_t size) const override { return image_->can_have(size); }
  Status make_room(std::uint64_t size) override;
  Status resize(std::uint64_t size) override;
  Status make_empty() override;
  Result<CheckReport> check(Repair repair, ProgressSink& progress, const CancelToken& cancel) override;

 private:
  Result<std::optional<Writer::Parent>> parent_of(const std::optional<BackingReference>& backing) const;
  Status readable(std::uint64_t offset, std::uint64_t length) const;
  Status writable(std::uint64_t offset, std::uint64_t length) const;
  bool has_parent() const { return image_->footer.type == DiskType::kDifferencing; }

  std::unique_ptr<ImageState> image_;
  const bool info_only_;
  BlockMap map_;
  std::unique_ptr<Writer> writer_;
};

std::optional<BackingReference> DynamicVhd::backing() const {
  if (!has_parent()) return std::nullopt;
  return BackingReference{.path = image_->parent.value_or(std::string()),
                          .format = std::string(format_name(DiskFormat::kVhd))};
}

Status DynamicVhd::accepts_backing(const Block& below) const {
  const std::string wanted = guid_text(image_->header.parent_id, /*little_endian=*/false);
  if (!has_parent() || below.identity() == wanted) return {};
  return Error(ErrorCode::kImageChain,
               printable(image_->file.path()) + " was made over the vhd " + wanted + ", not over the one that is there")
      .on(image_->file.path())
      .advise("put the image that it was made over back in its place");
}

Status DynamicVhd::readable(std::uint64_t offset, std::uint64_t length) const {
  if (info_only_) return Error(ErrorCode::kInvalidArgument, "the image was opened for info only");
  return check_range(offset, length, size());
}

Status DynamicVhd::writable(std::uint64_t offset, std::uint64_t length) const {
  const std::uint64_t end = writer_ ? writer_->reach() : size();
  TRY(readable(0, 0));
  TRY(check_range(offset, length, end));
  TRY(check_whole_units(offset, length, kSectorBytes, end));
  if (writer_) return {};
  return Error(ErrorCode::kInvalidArgument, "the image was not opened for writing").on(image_->file.path());
}

Status DynamicVhd::may_be_written(Writing) const {
  if (image_->damaged.empty()) return {};
  return image_->corrupt("the image cannot be written: its table of blocks is damaged", image_->header.table_offset)
      .advise("check tells where; copy what can be read into a new image");
}

Status DynamicVhd::read(std::uint64_t offset, MutableBytes out) {
  TRY(readable(offset, out.size()));
  while (!out.empty()) {
    const Run run = TRY(map_.find(offset, out.size()));
    const MutableBytes part = out.first(run.length);
    if (run.present) {
      TRY(read_exact(image_->file, run.host, part, "a block"));
    } else {
      std::memset(part.data(), 0, part.size());
    }
    offset += run.length;
    out = out.subspan(run.length);
  }
  return {};
}

Result<BlockStatus> DynamicVhd::status(std::uint64_t offset, std::uint64_t length) {
  TRY(readable(offset, 0));
  if (offset >= size() || length == 0) return Error(ErrorCode::kInvalidArgument, "the range lies outside the disk");
  const Run run = TRY(map_.find(offset, std::min(length, size() - offset)));
  BlockStatus status;
  status.length = run.length;
  if (run.present) {
    status.mapping = Mapping::kData;
    status.host_offset = run.host;
  }
  return status;
}

// What is recorded for it.
Result<std::optional<Writer::Parent>> DynamicVhd::parent_of(const std::optional<BackingReference>& backing) const {
  if (!has_parent()) {
    return Error(ErrorCode::kUnsupported,
                 printable(image_->file.path()) + " is no differencing vhd, and stands on no backing")
        .on(image_->file.path())
        .advise("create a vhd over the backing");
  }
  if (!backing) return std::optional<Writer::Parent>();
  if (backing->format && format_from_name(*backing->format) != DiskFormat::kVhd) {
    return Error(ErrorCode::kUnsupported, "the backing of a vhd image is a vhd image, not " + *backing->format)
        .on(image_->file.path())
        .advise("convert the overlay to qcow2, which stands on every format");
  }
  Writer::Parent parent{.id = image_->header.parent_id, .time = image_->header.parent_time, .path = backing->path};
  if (backing->path != image_->parent) parent.name = TRY(write_parent_path(backing->path));
  if (backing->modified) parent.time = timestamp_of(*backing->modified);
  if (!backing->content_id) return std::optional(std::move(parent));
  const auto id = guid_from_text(*backing->content_id, /*little_endian=*/false);
  if (!id) {
    return Error(ErrorCode::kInvalidArgument, "backing: its id is none that a vhd image can record")
        .on(image_->file.path());
  }
  parent.id = *id;
  return std::optional(std::move(parent));
}

Status DynamicVhd::can_set_backing(const std::optional<BackingReference>& backing) const {
  TRY(parent_of(backing));
  return {};
}

Status DynamicVhd::set_backing(const std::optional<BackingReference>& backing) {
  const std::optional<Writer::Parent> parent = TRY(parent_of(backing));
  TRY(writable(0, 0));
  return writer_->change_parent(parent);
}

Status DynamicVhd::make_room(std::uint64_t bytes) {
  TRY(can_resize(bytes));
  TRY(writable(0, 0));
  return bytes > size() ? writer_->make_room(bytes) : ok_status();
}

// Smaller first, and then the blocks: killed in between, what is beyond the end is hidden, and leaks at most.
Status DynamicVhd::resize(std::uint64_t bytes) {
  TRY(can_resize(bytes));
  TRY(writable(0, 0));
  if (bytes > writer_->reach()) TRY(writer_->make_room(bytes));
  return bytes == size() ? ok_status() : writer_->set_disk_size(bytes);
}

Status DynamicVhd::make_empty() {
  if (!has_parent()) return Block::make_empty();
  TRY(writable(0, 0));
  return writer_->make_empty();
}

Result<CheckReport> DynamicVhd::check(Repair repair, ProgressSink& progress, const CancelToken& cancel) {
  if (repair != Repair::kNone) TRY(writable(0, 0));
  TRY(readable(0, 0));
  TRY(flush());
  return check_dynamic(*image_, repair, writer_.get(), progress, cancel);
}

bool has_cookie(Bytes head) {
  return head.size() >= kCookieBytes && std::memcmp(head.data(), kFooterCookie, kCookieBytes) == 0;
}

}  // namespace

Result<std::unique_ptr<Block>> open_vhd(File& file, const OpenOptions& options) {
  auto image =
      TRY(load_image(file, {.header_only = options.info_only, .budget = options.budget, .cancel = options.cancel}));
  if (image->footer.type == DiskType::kFixed) return make_fixed_vhd(std::move(image), options.writable);
  if (image->footer.type == DiskType::kDifferencing && !image->parent && !options.info_only) {
    return Error(ErrorCode::kImageChain,
                 printable(file.path()) + " is a differencing vhd, and has no name of its parent that can be read")
        .on(file.path());
  }
  return std::unique_ptr<Block>(std::make_unique<DynamicVhd>(std::move(image), options));
}

Result<bool> probe_vhd(const File& file) {
  std::array<std::byte, kFooterBytes> head = {};
  if (has_cookie(Bytes(head).first(TRY(file.read_at(0, head))))) return true;
  const Ends ends = TRY(read_ends(file));
  if (!ends.end) return false;
  if (ends.end->type == DiskType::kFixed) return ends.end->fits(ends.end_offset);
  const auto header_end = checked_add(ends.end->data_offset, kHeaderBytes);
  if (!header_end || *header_end > ends.file_bytes) return false;
  std::vector<std::byte> header(kHeaderBytes);
  TRY(read_exact(file, ends.end->data_offset, header, "the vhd dynamic header"));
  return parse_dynamic_header(header).ok();
}

}  // namespace sluicebox::image::vhd
