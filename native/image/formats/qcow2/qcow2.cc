#include "image/formats/qcow2/qcow2.h"

#include <algorithm>
#include <chrono>

#include "base/checked.h"
#include "image/block_range.h"
#include "image/formats/qcow2/backing_update.h"
#include "image/formats/qcow2/bitmap_directory.h"
#include "image/formats/qcow2/check.h"
#include "image/formats/qcow2/compressed.h"
#include "image/formats/qcow2/describe.h"
#include "image/formats/qcow2/disk_reader.h"
#include "image/formats/qcow2/feature_names.h"
#include "image/formats/qcow2/image_state.h"
#include "image/formats/qcow2/mapping.h"
#include "image/formats/qcow2/refcounts.h"
#include "image/formats/qcow2/writer.h"

namespace sluicebox::image::qcow2 {

namespace {

class Qcow2Block final : public Block {
 public:
  Qcow2Block(std::unique_ptr<ImageState> image, const OpenOptions& options)
      : image_(std::move(image)), options_(options), unreadable_(unreadable_feature(image_->header)) {
    if (options.writable) writer_ = std::make_unique<Writer>(*image_);
  }

  DiskFormat format() const override { return DiskFormat::kQcow2; }
  std::uint64_t size() const override { return image_->header.size; }
  std::uint64_t allocation_unit() const override { return image_->geometry().unit(); }
  std::uint64_t packed_unit() const override { return image_->geometry().cluster(); }
  LayerInfo info() const override { return describe(*image_); }
  std::optional<BackingReference> backing() const override { return image_->header.backing; }
  bool has_internal_snapshots() const override { return image_->header.snapshot_count != 0; }
  Result<std::unique_ptr<Block>> open_snapshot(const std::string& id_or_name) const override;
  Result<std::optional<std::vector<PersistentBitmap>>> bitmaps() const override;

  Status read(std::uint64_t offset, MutableBytes out) override;
  Result<BlockStatus> status(std::uint64_t offset, std::uint64_t length) override;
  Result<bool> maps_holes() const override;
  Status write(std::uint64_t offset, Bytes data) override;
  Status write_zeros(std::uint64_t offset, std::uint64_t length) override;
  Result<std::unique_ptr<UnitPacker>> make_packer() const override {
    return make_cluster_packer(compression_of(*image_), packed_unit());
  }
  Status write_packed(std::uint64_t offset, Bytes packed) override;
  Status flush() override { return writer_ ? writer_->flush() : ok_status(); }
  Status may_be_written(Writing what) const override;
  Status prepare_to_write(Writing what, ProgressSink& progress, const CancelToken& cancel) override;
  void abandon() override {
    if (writer_) writer_->abandon();
  }
  Status can_set_backing(const std::optional<BackingReference>& backing) const override {
    return can_update_backing(*image_, backing);
  }
  Status set_backing(const std::optional<BackingReference>& backing) override;
  Status can_resize(std::uint64_t size) const override;
  Status make_room(std::uint64_t size) override;
  Status resize(std::uint64_t size) override;
  Status make_empty() override;
  Status create_snapshot(const std::string& name, ProgressSink& progress, const CancelToken& cancel) override;
  Status apply_snapshot(const std::string& id_or_name, ProgressSink& progress, const CancelToken& cancel) override {
    return change_snapshots(cancel, [&] { return writer_->apply_snapshot(id_or_name, progress, cancel); });
  }
  Status remove_snapshot(const std::string& id_or_name, ProgressSink& progress, const CancelToken& cancel) override {
    return change_snapshots(cancel, [&] { return writer_->remove_snapshot(id_or_name, progress, cancel); });
  }
  Result<CheckReport> check(Repair repair, ProgressSink& progress, const CancelToken& cancel) override;

  Status preallocate(ProgressSink& progress, const CancelToken& cancel);
  Status allocate(std::uint64_t offset, const CancelToken& cancel) override;

 private:
  Status repair_unclean(ProgressSink& progress, const CancelToken& cancel);
  Status prepare_silently();
  template <typename Change>
  Status change_snapshots(const CancelToken& cancel, const Change& change);
  Status reload(const CancelToken& cancel);
  Status readable(std::uint64_t offset, std::uint64_t length) const;
  Status writable(std::uint64_t offset, std::uint64_t length) const;
  Error read_only() const {
    return Error(ErrorCode::kInvalidArgument, "the image was not opened for writing").on(image_->file.path());
  }

  std::unique_ptr<ImageState> image_;
  OpenOptions options_;
  std::string unreadable_;  // the feature's name, where only info() works
  std::unique_ptr<Writer> writer_;
  std::uint64_t room_end_ = 0;  // writes may reach up to here, where that is behind the disk's end
};

Error unsupported(const File& file, const std::string& feature) {
  return Error(ErrorCode::kUnsupported, "the image uses a feature that is not supported: " + feature).on(file.path());
}

Status refuse_bitmaps(const ImageState& image) {
  const auto bitmaps = TRY(image.header.bitmaps());
  if (!bitmaps || (image.header.autoclear & kAutoclearBitmaps) == 0) return {};
  return Error(ErrorCode::kUnsupported, "the image has " + std::to_string(bitmaps->count) +
                                            " persistent bitmaps, which writing would make wrong")
      .on(image.file.path())
      .advise("remove them first (qemu-img bitmap --remove)");
}

Status Qcow2Block::may_be_written(Writing what) const {
  if (what == Writing::kBytes && !image_->metadata_damage.empty()) {
    return image_->corrupt("the image cannot be written: " + image_->metadata_damage, 0)
        .advise("run check with repair");
  }
  if (image_->header.has(Incompatible::kCorrupt)) {
    return image_->corrupt("the image is marked corrupt", at::kIncompatible).advise("run check with repair");
  }
  return refuse_bitmaps(*image_);
}

Status Qcow2Block::prepare_to_write(Writing what, ProgressSink& progress, const CancelToken& cancel) {
  if (!writer_) return read_only();
  if (image_->header.has(Incompatible::kDirty)) TRY(repair_unclean(progress, cancel));
  return what == Writing::kBytes ? writer_->prepare(progress, cancel) : ok_status();
}

Status Qcow2Block::prepare_silently() {
  if (!image_->header.has(Incompatible::kDirty)) return {};
  NoProgress silent;
  const CancelToken never;
  return repair_unclean(silent, never);
}

// Whoever had it open last kept its counts in memory, and did not come to write them.
Status Qcow2Block::repair_unclean(ProgressSink& progress, const CancelToken& cancel) {
  const CheckReport report = TRY(repair_whole(*image_, progress, cancel));
  if (report.corruptions == 0) return reload(cancel);
  return image_->corrupt("the image was not closed cleanly, and is damaged beyond its reference counts", 0)
      .advise("run check with repair");
}

// After a repair: everything that memory holds of the tables may be wrong.
Status Qcow2Block::reload(const CancelToken& cancel) {
  // What is there now goes in a moment, and is no reason to refuse what takes its place.
  image_->tables.give_all_back();
  auto image = TRY(load_image(image_->file, {.writable = true, .budget = image_->tables.budget(), .cancel = &cancel}));
  writer_.reset();
  image_ = std::move(image);
  writer_ = std::make_unique<Writer>(*image_);
  return {};
}

Status Qcow2Block::readable(std::uint64_t offset, std::uint64_t length) const {
  if (!unreadable_.empty()) return unsupported(image_->file, unreadable_);
  if (options_.info_only) return Error(ErrorCode::kInvalidArgument, "the image was opened for info only");
  return check_range(offset, length, size());
}

Status Qcow2Block::writable(std::uint64_t offset, std::uint64_t length) const {
  TRY(readable(0, 0));
  TRY(check_range(offset, length, std::max(size(), room_end_)));
  if (!writer_) return read_only();
  return check_whole_units(offset, length, allocation_unit(), size());
}

Status Qcow2Block::read(std::uint64_t offset, MutableBytes out) {
  TRY(readable(offset, out.size()));
  return read_disk(*image_, offset, out);
}

Result<BlockStatus> Qcow2Block::status(std::uint64_t offset, std::uint64_t length) {
  TRY(readable(offset, 0));
  if (offset >= size() || length == 0) return Error(ErrorCode::kInvalidArgument, "the range lies outside the disk");
  length = std::min(length, size() - offset);
  const Extent first = TRY(find_extent(*image_, offset, length));
  BlockStatus status;
  status.length = first.length;
  if (first.kind != EntryKind::kCompressed && first.host != 0) status.host_offset = first.host;
  switch (first.kind) {
    case EntryKind::kUnallocated:
      break;
    case EntryKind::kZero:
      status.mapping = Mapping::kZero;
      break;
    case EntryKind::kData:
      status.mapping = Mapping::kData;
      break;
    case EntryKind::kCompressed:
      status.mapping = Mapping::kData;
      status.compressed = true;
      while (status.length < length) {
        auto next = find_extent(*image_, offset + status.length,
                                std::min(length - status.length, image_->geometry().cluster()));
        if (!next.ok() || next->kind != EntryKind::kCompressed) break;
        status.length += next->length;
      }
      break;
  }
  return status;
}

// One counted cluster in ten, or more, has no space. The threshold is QEMU's (qcow2_detect_metadata_preallocation), so
// that both tell the same.
Result<bool> Qcow2Block::maps_holes() const {
  const Geometry& geometry = image_->geometry();
  const std::uint64_t with_space = TRY(image_->file.allocated_bytes()) >> geometry.cluster_bits;
  const std::uint64_t threshold = std::max(with_space * 10 / 9, with_space + 2);
  const std::uint64_t clusters = geometry.clusters_for(image_->file_end);
  Refcounts refcounts(*image_);
  std::uint64_t counted = 0;
  for (std::uint64_t cluster = 0; cluster < clusters && counted < threshold; ++cluster) {
    if (TRY(refcounts.get(cluster)) != 0) ++counted;
  }
  return counted >= threshold;
}

Status Qcow2Block::write(std::uint64_t offset, Bytes data) {
  TRY(writable(offset, data.size()));
  if (data.empty()) return {};
  TRY(prepare_silently());
  return writer_->write(offset, data);
}

Status Qcow2Block::write_zeros(std::uint64_t offset, std::uint64_t length) {
  TRY(writable(offset, length));
  if (length == 0) return {};
  TRY(prepare_silently());
  return writer_->write_zeros(offset, length);
}

Status Qcow2Block::write_packed(std::uint64_t offset, Bytes packed) {
  TRY(writable(offset, 0));
  TRY(check_range(offset, 1, size()));
  if (packed.empty() || packed.size() >= packed_unit() || offset % packed_unit() != 0) {
    return Error(ErrorCode::kInternal, "no packed cluster: it is no smaller than one, or begins inside one");
  }
  TRY(prepare_silently());
  return writer_->write_packed(offset, packed);
}

Result<std::unique_ptr<Block>> Qcow2Block::open_snapshot(const std::string& id_or_name) const {
  return open_qcow2(image_->file, {.salvage = options_.salvage,
                                   .budget = image_->tables.budget(),
                                   .cancel = options_.cancel,
                                   .snapshot = id_or_name});
}

Result<std::optional<std::vector<PersistentBitmap>>> Qcow2Block::bitmaps() const {
  if (image_->header.version < 3) return std::optional<std::vector<PersistentBitmap>>();
  return std::optional(TRY(read_bitmaps(*image_)));
}

Status Qcow2Block::set_backing(const std::optional<BackingReference>& backing) {
  TRY(can_set_backing(backing));
  if (!writer_) return read_only();
  TRY(prepare_silently());
  TRY(writer_->flush());
  TRY(writer_->prepare_header());
  return update_backing(*image_, backing);
}

Status Qcow2Block::can_resize(std::uint64_t new_size) const {
  const std::string& path = image_->file.path();
  // Version 3 requires that each says how large the disk was; else it is as large as the disk is now.
  const bool sized = image_->header.version >= 3 && std::ranges::all_of(image_->snapshots, [](const Snapshot& each) {
                       return each.disk_bytes.has_value();
                     });
  if (has_internal_snapshots() && !sized) {
    return Error(ErrorCode::kUnsupported, "the image has internal snapshots, which are of its present size")
        .on(path)
        .advise("remove its internal snapshots first");
  }
  const Geometry& geometry = image_->geometry();
  if (geometry.l1_entries_for(new_size) <= kMaxL1Entries) return {};
  return Error(ErrorCode::kInvalidArgument, "size: " + std::to_string(new_size) + " bytes are more than clusters of " +
                                                std::to_string(geometry.cluster()) + " bytes can map")
      .on(path);
}

Status Qcow2Block::make_room(std::uint64_t new_size) {
  TRY(can_resize(new_size));
  if (!writer_) return read_only();
  TRY(prepare_silently());
  TRY(writer_->make_room(new_size));
  room_end_ = checked_align_up(new_size, allocation_unit()).value_or(new_size);
  return {};
}

// Smaller first, and then the clusters: killed in between, what is beyond the end is hidden, and leaks at most.
Status Qcow2Block::resize(std::uint64_t new_size) {
  TRY(can_resize(new_size));
  if (!writer_) return read_only();
  TRY(prepare_silently());
  const bool shrinks = new_size < size();
  if (new_size > size() && new_size > room_end_) TRY(make_room(new_size));
  TRY(writer_->set_disk_size(new_size));
  room_end_ = 0;
  if (!shrinks) return {};
  TRY(writer_->unmap_from(new_size));
  return writer_->trim();
}

Status Qcow2Block::make_empty() {
  if (!writer_) return read_only();
  TRY(prepare_silently());
  TRY(writer_->unmap_from(0));
  return writer_->trim();
}

// The writer and its tables are of before: whatever became of the change, all is read anew.
template <typename Change>
Status Qcow2Block::change_snapshots(const CancelToken& cancel, const Change& change) {
  if (!writer_) return read_only();
  TRY(prepare_silently());
  TRY(change());
  return reload(cancel);
}

Status Qcow2Block::create_snapshot(const std::string& name, ProgressSink& progress, const CancelToken& cancel) {
  using std::chrono::nanoseconds, std::chrono::seconds, std::chrono::floor;
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const NewSnapshot wanted{
      .id = {},
      .name = name,
      .seconds = floor<seconds>(now).count(),
      .nanoseconds = static_cast<std::uint32_t>(floor<nanoseconds>(now - floor<seconds>(now)).count())};
  return change_snapshots(cancel, [&] { return writer_->create_snapshot(wanted, progress, cancel); });
}

Status Qcow2Block::preallocate(ProgressSink& progress, const CancelToken& cancel) {
  TRY(writable(0, 0));
  if (image_->header.backing) {
    return Error(ErrorCode::kUnsupported, "preallocation would hide the backing").on(image_->file.path());
  }
  if (std::any_of(image_->l1.begin(), image_->l1.end(), [](std::uint64_t entry) { return entry != 0; })) {
    return Error(ErrorCode::kInvalidArgument, "preallocation needs an empty image").on(image_->file.path());
  }
  return writer_->preallocate({.end = image_->geometry().clusters_for(size())}, progress, cancel);
}

// What is in a cluster with something else is written; the others are mapped.
Status Qcow2Block::allocate(std::uint64_t offset, const CancelToken& cancel) {
  TRY(writable(0, 0));
  const Geometry& geometry = image_->geometry();
  const std::uint64_t first = geometry.clusters_for(offset);
  const std::uint64_t begin = std::min(first << geometry.cluster_bits, size());
  const std::uint64_t unit = checked_align_up(offset, geometry.unit()).value_or(begin);
  if (begin > unit) TRY(write(unit, std::vector<std::byte>(begin - unit)));
  NoProgress silent;
  return writer_->preallocate({.begin = first, .end = geometry.clusters_for(size()), .data = geometry.all_units()},
                              silent, cancel);
}

// The checker works on the file: what waits in memory is flushed first, and what it repaired is read anew.
Result<CheckReport> Qcow2Block::check(Repair repair, ProgressSink& progress, const CancelToken& cancel) {
  if (!unreadable_.empty()) return unsupported(image_->file, unreadable_);
  if (options_.info_only) return Error(ErrorCode::kInvalidArgument, "the image was opened for info only");
  if (repair != Repair::kNone && !writer_) return read_only();
  if (writer_ && !image_->header.has(Incompatible::kCorrupt)) TRY(writer_->flush());
  auto report = check_qcow2(*image_, repair, progress, cancel);
  if (repair == Repair::kNone) return report;
  TRY(reload(cancel));
  return report;
}

}  // namespace

Result<std::unique_ptr<Block>> open_qcow2(File& file, const OpenOptions& options) {
  auto image = TRY(load_image(file, {.header_only = options.info_only,
                                     .writable = options.writable,
                                     .salvage = options.salvage,
                                     .budget = options.budget,
                                     .cancel = options.cancel,
                                     .snapshot = options.snapshot}));
  const std::string feature = unreadable_feature(image->header);
  if (!feature.empty() && !options.info_only) return unsupported(file, feature);
  auto block = std::make_unique<Qcow2Block>(std::move(image), options);
  if (options.writable && !options.for_repair) TRY(block->may_be_written(Writing::kBacking));
  return std::unique_ptr<Block>(std::move(block));
}

Status preallocate_metadata(Block& block, ProgressSink& progress, const CancelToken& cancel) {
  auto* qcow2 = dynamic_cast<Qcow2Block*>(&block);
  if (qcow2 == nullptr) return Error(ErrorCode::kInvalidArgument, "metadata preallocation is for qcow2 images");
  return qcow2->preallocate(progress, cancel);
}

bool probe_qcow2(Bytes head) {
  if (head.size() < 8 || load_be32(head.data() + at::kMagic) != kMagic) return false;
  const std::uint32_t version = load_be32(head.data() + at::kVersion);
  return version == 2 || version == 3;
}

}  // namespace sluicebox::image::qcow2
