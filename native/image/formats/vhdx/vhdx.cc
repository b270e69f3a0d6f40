#include "image/formats/vhdx/vhdx.h"

#include <algorithm>

#include "image/block_range.h"
#include "image/formats/vhdx/block_map.h"
#include "image/formats/vhdx/changed_pages.h"
#include "image/formats/vhdx/check.h"
#include "image/formats/vhdx/image_state.h"
#include "image/formats/vhdx/writer.h"
#include "image/printable.h"

namespace sluicebox::image::vhdx {

namespace {

class VhdxBlock final : public Block {
 public:
  VhdxBlock(std::unique_ptr<ImageState> image, const OpenOptions& options)
      : image_(std::move(image)), info_only_(options.info_only) {
    if (options.writable) writer_ = std::make_unique<Writer>(*image_);
  }

  DiskFormat format() const override { return DiskFormat::kVhdx; }
  std::uint64_t size() const override { return image_->metadata.disk_bytes; }
  std::uint64_t allocation_unit() const override { return image_->metadata.logical_sector; }
  LayerInfo info() const override;
  std::string identity() const override { return guid_text(image_->header.data_write, /*little_endian=*/true); }
  std::optional<BackingReference> backing() const override;
  Status accepts_backing(const Block& below) const override;

  Status read(std::uint64_t offset, MutableBytes out) override;
  Result<BlockStatus> status(std::uint64_t offset, std::uint64_t length) override;
  Status write(std::uint64_t offset, Bytes data) override {
    TRY(writable(offset, data.size()));
    return data.empty() ? ok_status() : writer_->write(offset, data);
  }
  Status write_zeros(std::uint64_t offset, std::uint64_t length) override {
    TRY(writable(offset, length));
    return length == 0 ? ok_status() : writer_->write_zeros(offset, length);
  }
  Status flush() override { return writer_ ? writer_->flush() : ok_status(); }
  Status may_be_written(Writing what) const override;
  Status prepare_to_write(Writing what, ProgressSink& progress, const CancelToken& cancel) override;
  void abandon() override {
    if (writer_) writer_->abandon();
  }
  std::optional<std::string> content_id() const override { return identity(); }
  Status renew_content_id() override;
  Status can_set_backing(const std::optional<BackingReference>& backing) const override;
  Status set_backing(const std::optional<BackingReference>& backing) override;
  Status can_resize(std::uint64_t size) const override;
  Status make_room(std::uint64_t size) override;
  Status resize(std::uint64_t size) override;
  Status make_empty() override;
  Result<CheckReport> check(Repair repair, ProgressSink& progress, const CancelToken& cancel) override;

 private:
  Result<ParentNames> names_of(const std::optional<BackingReference>& backing) const;
  Status readable(std::uint64_t offset, std::uint64_t length) const;
  Status writable(std::uint64_t offset, std::uint64_t length) const;
  Error read_only() const {
    return Error(ErrorCode::kInvalidArgument, "the image was not opened for writing").on(image_->file.path());
  }

  std::unique_ptr<ImageState> image_;
  const bool info_only_;
  std::unique_ptr<Writer> writer_;
};

LayerInfo VhdxBlock::info() const {
  const Metadata& metadata = image_->metadata;
  LayerInfo info;
  info.cluster_bytes = metadata.block_size;
  info.dirty = image_->has_log();
  const char* subformat = metadata.has_parent ? "differencing" : metadata.fixed ? "fixed" : "dynamic";
  info.specific.push_back({.name = "subformat", .value = std::string(subformat)});
  info.specific.push_back({.name = "id", .value = guid_text(metadata.page83, /*little_endian=*/true)});
  info.specific.push_back({.name = "log-size", .value = std::uint64_t{image_->header.log_length}});
  info.specific.push_back({.name = "logical-sector-size", .value = std::uint64_t{metadata.logical_sector}});
  info.specific.push_back({.name = "physical-sector-size", .value = std::uint64_t{metadata.physical_sector}});
  if (metadata.parent && !metadata.parent->linkage.empty()) {
    info.specific.push_back({.name = "parent-id", .value = metadata.parent->linkage.front()});
  }
  return info;
}

std::optional<BackingReference> VhdxBlock::backing() const {
  if (!image_->metadata.has_parent) return std::nullopt;
  return BackingReference{.path = image_->metadata.parent->path().value_or(std::string()),
                          .format = std::string(format_name(DiskFormat::kVhdx))};
}

Status VhdxBlock::accepts_backing(const Block& below) const {
  if (!image_->metadata.has_parent) return {};
  const std::vector<std::string>& wanted = image_->metadata.parent->linkage;
  if (std::ranges::find(wanted, below.identity()) != wanted.end()) return {};
  return Error(ErrorCode::kImageChain, printable(image_->file.path()) +
                                           " was made over another vhdx than the one that is there, or over what that "
                                           "was before it was written to")
      .on(image_->file.path())
      .advise("put the image that it was made over back in its place");
}

Status VhdxBlock::readable(std::uint64_t offset, std::uint64_t length) const {
  if (info_only_) return Error(ErrorCode::kInvalidArgument, "the image was opened for info only");
  return check_range(offset, length, size());
}

Status VhdxBlock::writable(std::uint64_t offset, std::uint64_t length) const {
  const std::uint64_t end = writer_ ? writer_->reach() : size();
  TRY(readable(0, 0));
  TRY(check_range(offset, length, end));
  TRY(check_whole_units(offset, length, allocation_unit(), end));
  if (!writer_) return read_only();
  return may_be_written(Writing::kBytes);
}

Status VhdxBlock::may_be_written(Writing) const {
  if (!image_->damaged.empty()) {
    return image_->corrupt("the image cannot be written: its table of blocks is damaged", image_->regions.table.offset)
        .advise("check tells where; copy what can be read into a new image");
  }
  return {};
}

Status VhdxBlock::prepare_to_write(Writing what, ProgressSink&, const CancelToken&) {
  TRY(may_be_written(what));
  return writer_ ? writer_->begin(Writer::Change::kFile) : Status(read_only());
}

Status VhdxBlock::read(std::uint64_t offset, MutableBytes out) {
  TRY(readable(offset, out.size()));
  while (!out.empty()) {
    const Run run = TRY(find_run(*image_, offset, out.size()));
    const MutableBytes part = out.first(run.length);
    if (run.holds == Holds::kData) {
      TRY(read_exact(image_->file, run.host, part, "a block"));
    } else {
      std::memset(part.data(), 0, part.size());
    }
    offset += run.length;
    out = out.subspan(run.length);
  }
  return {};
}

Result<BlockStatus> VhdxBlock::status(std::uint64_t offset, std::uint64_t length) {
  TRY(readable(offset, 0));
  if (offset >= size() || length == 0) return Error(ErrorCode::kInvalidArgument, "the range lies outside the disk");
  const Run run = TRY(find_run(*image_, offset, std::min(length, size() - offset)));
  BlockStatus status;
  status.length = run.length;
  if (run.holds == Holds::kZeros) status.mapping = Mapping::kZero;
  if (run.holds == Holds::kData) {
    status.mapping = Mapping::kData;
    status.host_offset = run.host;
  }
  return status;
}

Status VhdxBlock::renew_content_id() {
  TRY(writable(0, 0));
  return writer_->begin(Writer::Change::kDisk);
}

// What is recorded for it. Of a parent that only was written, the names stay as they are.
Result<ParentNames> VhdxBlock::names_of(const std::optional<BackingReference>& backing) const {
  const std::string path = printable(image_->file.path());
  if (!image_->metadata.has_parent) {
    return Error(ErrorCode::kUnsupported, path + " is no differencing vhdx, and stands on no backing")
        .on(image_->file.path())
        .advise("create a vhdx over the backing");
  }
  if (!backing) {
    return Error(
               ErrorCode::kUnsupported,
               path + " is a differencing vhdx, whose blocks that are there in part need a parent: it is not detached")
        .on(image_->file.path())
        .advise("convert it, which copies what its chain shows into an image of its own");
  }
  if (backing->format && format_from_name(*backing->format) != DiskFormat::kVhdx) {
    return Error(ErrorCode::kUnsupported, "the backing of a vhdx image is a vhdx image, not " + *backing->format)
        .on(image_->file.path())
        .advise("convert the overlay to qcow2, which stands on every format");
  }
  ParentNames names = *image_->metadata.parent;
  if (backing->path != names.path()) {
    std::vector<std::string> linkage = std::move(names.linkage);
    names = TRY(parent_names(backing->path, Guid{}));
    names.linkage = std::move(linkage);
  }
  if (backing->content_id) {
    if (!guid_from_text(*backing->content_id, /*little_endian=*/true)) {
      return Error(ErrorCode::kInvalidArgument, "backing: its id is none that a vhdx image can record")
          .on(image_->file.path());
    }
    names.linkage = {*backing->content_id};
  }
  return names;
}

Status VhdxBlock::can_set_backing(const std::optional<BackingReference>& backing) const {
  const ParentNames names = TRY(names_of(backing));
  TRY(parent_pages(*image_, names));
  return {};
}

Status VhdxBlock::set_backing(const std::optional<BackingReference>& backing) {
  TRY(can_set_backing(backing));
  TRY(writable(0, 0));
  return writer_->change_parent(TRY(names_of(backing)));
}

Status VhdxBlock::can_resize(std::uint64_t bytes) const {
  const std::string& path = image_->file.path();
  const auto refuse = [&](const std::string& text) {
    return Error(ErrorCode::kInvalidArgument, "size: " + text).on(path);
  };
  // Others reckon the table of an empty disk to have 2^32 entries.
  if (bytes == 0) return refuse("a vhdx holds at least one sector");
  if (bytes > kMaxDiskBytes) return refuse(std::to_string(bytes) + " bytes are more than the 64 TiB of a vhdx");
  const std::uint64_t sector = allocation_unit();
  if (bytes % sector != 0) {
    return refuse(std::to_string(bytes) + " bytes are no whole sectors of " + std::to_string(sector));
  }
  const TableShape shape = image_->shape_of(bytes);
  if (shape.entries() * 8 <= kMaxTableBytes) return {};
  const std::uint64_t block_size = image_->metadata.block_size;
  return Error(ErrorCode::kUnsupported, "size: " + std::to_string(bytes) + " bytes in blocks of " +
                                            std::to_string(block_size) + " need a table above " +
                                            std::to_string(kMaxTableBytes / kMiB) + " MiB; the disk can have " +
                                            std::to_string(shape.most_blocks(kMaxTableBytes / 8) * block_size))
      .on(path)
      .advise("convert it to a vhdx with a larger blockSize");
}

Status VhdxBlock::make_room(std::uint64_t bytes) {
  TRY(can_resize(bytes));
  TRY(writable(0, 0));
  return bytes > size() ? writer_->make_room(bytes) : ok_status();
}

// Smaller first, and then the blocks: killed in between, what is beyond the end is hidden, and leaks at most.
Status VhdxBlock::resize(std::uint64_t bytes) {
  TRY(can_resize(bytes));
  TRY(writable(0, 0));
  if (bytes > writer_->reach()) TRY(writer_->make_room(bytes));
  return bytes == size() ? ok_status() : writer_->set_disk_size(bytes);
}

Status VhdxBlock::make_empty() {
  if (!image_->metadata.has_parent) return Block::make_empty();
  TRY(writable(0, 0));
  return writer_->make_empty();
}

Result<CheckReport> VhdxBlock::check(Repair repair, ProgressSink& progress, const CancelToken& cancel) {
  TRY(readable(0, 0));
  if (repair != Repair::kNone && !writer_) return read_only();
  TRY(flush());
  return check_vhdx(*image_, repair, writer_.get(), progress, cancel);
}

}  // namespace

Result<std::unique_ptr<Block>> open_vhdx(File& file, const OpenOptions& options) {
  auto image =
      TRY(load_image(file, {.header_only = options.info_only, .budget = options.budget, .cancel = options.cancel}));
  const Metadata& metadata = image->metadata;
  if (metadata.has_parent && !metadata.parent->path() && !options.info_only) {
    return Error(ErrorCode::kImageChain,
                 printable(file.path()) + " is a differencing vhdx, and has no name of its parent that can be read")
        .on(file.path());
  }
  return std::unique_ptr<Block>(std::make_unique<VhdxBlock>(std::move(image), options));
}

bool probe_vhdx(Bytes head) {
  return head.size() >= kFileSignatureBytes && std::memcmp(head.data(), kFileSignature, kFileSignatureBytes) == 0;
}

}  // namespace sluicebox::image::vhdx
