#include "image/formats/vmdk/vmdk.h"

#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>

#include "image/block_range.h"
#include "image/formats/vmdk/descriptor.h"
#include "image/formats/vmdk/descriptor_file.h"
#include "image/formats/vmdk/disk_parts.h"
#include "image/printable.h"

namespace sluicebox::image::vmdk {

namespace {

class VmdkBlock final : public Block {
 public:
  VmdkBlock(File& file, OpenedDisk disk, const OpenOptions& options)
      : file_(file),
        descriptor_file_(file, disk.header),
        descriptor_(std::move(disk.descriptor)),
        header_(disk.header),
        parts_(std::move(disk.parts)),
        writable_(options.writable) {
    for (const Part& part : parts_) unit_ = std::max(unit_, part.extent->unit());
    size_ = parts_.back().end;
  }

  DiskFormat format() const override { return DiskFormat::kVmdk; }
  std::uint64_t size() const override { return size_; }
  std::uint64_t allocation_unit() const override { return unit_; }
  LayerInfo info() const override { return describe_parts(file_, descriptor_, parts_); }
  std::optional<std::string> content_id() const override { return content_id_text(descriptor_.cid); }
  std::optional<BackingReference> backing() const override;

  Status read(std::uint64_t offset, MutableBytes out) override;
  Result<BlockStatus> status(std::uint64_t offset, std::uint64_t length) override;
  Status write(std::uint64_t offset, Bytes data) override;
  Status write_zeros(std::uint64_t offset, std::uint64_t length) override;
  Status flush() override;
  Status may_be_written(Writing what) const override;
  Status prepare_to_write(Writing what, ProgressSink& progress, const CancelToken& cancel) override;
  void abandon() override {
    for (const Part& part : parts_) part.extent->abandon();
  }
  Status renew_content_id() override;
  Status can_set_backing(const std::optional<BackingReference>& backing) const override;
  Status set_backing(const std::optional<BackingReference>& backing) override;
  Status make_empty() override;
  Result<CheckReport> check(Repair repair, ProgressSink& progress, const CancelToken& cancel) override;

 private:
  const Part& part_at(std::uint64_t offset) const;
  Status writable(std::uint64_t offset, std::uint64_t length) const;
  // Runs `act(extent, offset in it, length)` for each part of the range.
  template <typename Act>
  Status for_each_part(std::uint64_t offset, std::uint64_t length, const Act& act);
  Result<std::string> text_with_backing(const std::optional<BackingReference>& backing) const;
  Status replace_text(const std::string& text);
  Status begin_writing();
  Error read_only() const {
    return Error(ErrorCode::kInvalidArgument, "the image was not opened for writing").on(file_.path());
  }

  File& file_;
  DescriptorFile descriptor_file_;
  Descriptor descriptor_;
  const std::optional<SparseHeader> header_;  // of a disk in one sparse file
  const std::vector<Part> parts_;
  const bool writable_;
  std::uint64_t unit_ = kSectorBytes, size_ = 0;
  bool renewed_ = false;  // the content id is this session's
};

std::optional<BackingReference> VmdkBlock::backing() const {
  if (!descriptor_.parent_hint) return std::nullopt;
  return BackingReference{.path = *descriptor_.parent_hint,
                          .format = format_name(DiskFormat::kVmdk),
                          .content_id = content_id_text(descriptor_.parent_cid)};
}

Status VmdkBlock::writable(std::uint64_t offset, std::uint64_t length) const {
  TRY(check_range(offset, length, size_));
  if (!writable_) return read_only();
  return check_whole_units(offset, length, unit_, size_);
}

const Part& VmdkBlock::part_at(std::uint64_t offset) const {
  return *std::ranges::upper_bound(parts_, offset, {}, &Part::end);
}

template <typename Act>
Status VmdkBlock::for_each_part(std::uint64_t offset, std::uint64_t length, const Act& act) {
  while (length > 0) {
    const Part& part = part_at(offset);
    const std::uint64_t here = std::min(length, part.end - offset);
    TRY(act(*part.extent, offset - part.start, here));
    offset += here;
    length -= here;
  }
  return {};
}

Status VmdkBlock::read(std::uint64_t offset, MutableBytes out) {
  TRY(check_range(offset, out.size(), size_));
  return for_each_part(offset, out.size(), [&](Extent& extent, std::uint64_t at, std::uint64_t length) {
    const Status outcome = extent.read(at, out.first(length));
    out = out.subspan(length);
    return outcome;
  });
}

Result<BlockStatus> VmdkBlock::status(std::uint64_t offset, std::uint64_t length) {
  TRY(check_range(offset, 0, size_));
  if (offset >= size_ || length == 0) {
    return Error(ErrorCode::kInvalidArgument, "the range lies outside the disk").on(file_.path());
  }
  const Part& part = part_at(offset);
  BlockStatus status = TRY(part.extent->status(offset - part.start, std::min(length, part.end - offset)));
  // Offsets are of the layer's own file, and only where the bytes lie there.
  if (part.extent->file() != &file_) status.host_offset.reset();
  return status;
}

// Who keeps this disk as a parent knows it by its id, and must see that it is no longer what it was.
Status VmdkBlock::begin_writing() { return renewed_ ? ok_status() : renew_content_id(); }

Status VmdkBlock::renew_content_id() {
  if (!writable_) return read_only();
  NewCid next{.text = {}, .cid = descriptor_.cid};
  while (next.cid == descriptor_.cid || next.cid == kNoParent || next.cid == 0) {
    next = with_cid(descriptor_, TRY(draw_content_id()));
  }
  TRY(replace_text(next.text));
  renewed_ = true;
  return {};
}

Status VmdkBlock::write(std::uint64_t offset, Bytes data) {
  TRY(writable(offset, data.size()));
  if (data.empty()) return {};
  TRY(may_be_written(Writing::kBytes));
  TRY(begin_writing());
  return for_each_part(offset, data.size(), [&](Extent& extent, std::uint64_t at, std::uint64_t length) {
    const Status outcome = extent.write(at, data.first(length));
    data = data.subspan(length);
    return outcome;
  });
}

Status VmdkBlock::write_zeros(std::uint64_t offset, std::uint64_t length) {
  TRY(writable(offset, length));
  if (length == 0) return {};
  TRY(may_be_written(Writing::kBytes));
  TRY(begin_writing());
  return for_each_part(offset, length, [&](Extent& extent, std::uint64_t at, std::uint64_t part) {
    return extent.write_zeros(at, part);
  });
}

Status VmdkBlock::flush() {
  if (!writable_) return {};
  for (const Part& part : parts_) TRY(part.extent->flush());
  return {};
}

Status VmdkBlock::may_be_written(Writing what) const {
  if (descriptor_.tracks_changes) {
    return Error(ErrorCode::kUnsupported,
                 "the image tracks its changes (changeTrackPath), which writing would make wrong")
        .on(file_.path());
  }
  for (const Part& part : parts_) {
    if (what == Writing::kBytes || part.extent->compressed()) TRY(part.extent->may_be_written());
    if (what == Writing::kBytes && part.start % unit_ != 0) {
      return Error(ErrorCode::kUnsupported, "the parts of the disk do not end where grains do, and cannot be written")
          .on(file_.path())
          .advise("convert it");
    }
  }
  return {};
}

Status VmdkBlock::prepare_to_write(Writing what, ProgressSink& progress, const CancelToken& cancel) {
  if (!writable_) return read_only();
  TRY(may_be_written(what));
  if (what == Writing::kBacking) return {};
  for (const Part& part : parts_) TRY(part.extent->prepare(progress, cancel));
  return {};
}

Result<std::string> VmdkBlock::text_with_backing(const std::optional<BackingReference>& backing) const {
  if (!backing) return with_parent(descriptor_, std::nullopt, kNoParent);
  const auto refuse = [&](std::string text) {
    return Error(ErrorCode::kInvalidArgument, "backing: " + std::move(text)).on(file_.path());
  };
  if (backing->path.empty()) return refuse("the path is empty");
  if (backing->path.size() > kMaxParentHint) {
    return refuse("the path has " + std::to_string(backing->path.size()) + " bytes, at most 1023 are stored");
  }
  if (!quotable(backing->path)) return refuse("a descriptor cannot hold a path with a quote or a control character");
  std::uint32_t cid = descriptor_.parent_cid;
  if (backing->content_id) {
    const auto given = content_id_from_text(*backing->content_id);
    if (!given || *given == kNoParent) return refuse("its content id is none that a vmdk image can record");
    cid = *given;
  }
  return with_parent(descriptor_, backing->path, cid);
}

Status VmdkBlock::can_set_backing(const std::optional<BackingReference>& backing) const {
  for (const Part& part : parts_) {
    if (part.kind == ExtentKind::kSparse) continue;
    return Error(ErrorCode::kUnsupported, "the image has flat parts, which have data everywhere, and no backing")
        .on(file_.path());
  }
  if (backing && backing->format && *backing->format != format_name(DiskFormat::kVmdk)) {
    return Error(ErrorCode::kUnsupported, "the backing of a vmdk image is a vmdk image, not " + *backing->format)
        .on(file_.path())
        .advise("convert the overlay to qcow2, which stands on every format");
  }
  return descriptor_file_.can_replace(descriptor_.text, TRY(text_with_backing(backing)));
}

Status VmdkBlock::set_backing(const std::optional<BackingReference>& backing) {
  TRY(can_set_backing(backing));
  if (!writable_) return read_only();
  TRY(may_be_written(Writing::kBacking));
  if (backing && !backing->content_id && !descriptor_.parent_hint) {
    return Error(ErrorCode::kUnsupported, "a vmdk image records its backing's content id, and this one is not known")
        .on(file_.path())
        .advise("name a backing that is there");
  }
  TRY(flush());
  return replace_text(TRY(text_with_backing(backing)));
}

// What is in memory afterwards is what was parsed from the new text, as the next reader parses it.
Status VmdkBlock::replace_text(const std::string& text) {
  TRY(parse_descriptor(text));
  const std::string lies_there = TRY(descriptor_file_.replace(descriptor_.text, text));
  descriptor_ = TRY(parse_descriptor(lies_there));
  return {};
}

Status VmdkBlock::make_empty() {
  if (!writable_) return read_only();
  TRY(may_be_written(Writing::kBytes));
  for (const Part& part : parts_) {
    if (part.kind != ExtentKind::kSparse) return can_set_backing(std::nullopt);
  }
  TRY(flush());
  for (const Part& part : parts_) TRY(part.extent->make_empty());
  return {};
}

Result<CheckReport> VmdkBlock::check(Repair repair, ProgressSink& progress, const CancelToken& cancel) {
  if (repair != Repair::kNone && !writable_) return read_only();
  TRY(flush());
  CheckReport report;
  for (const Part& part : parts_) TRY(part.extent->check(repair, report, progress, cancel));
  return report;
}

}  // namespace

Result<std::unique_ptr<Block>> open_vmdk(File& file, const OpenOptions& options) {
  OpenedDisk disk = TRY(open_disk(file, options));
  auto block = std::make_unique<VmdkBlock>(file, std::move(disk), options);
  if (options.writable && !options.for_repair) TRY(block->may_be_written(Writing::kBacking));
  return std::unique_ptr<Block>(std::move(block));
}

bool probe_vmdk(Bytes head) {
  const auto begins = [&](std::string_view magic) {
    return head.size() >= magic.size() && std::memcmp(head.data(), magic.data(), magic.size()) == 0;
  };
  return begins("KDMV") || begins(kDescriptorMagic);
}

Result<std::uint32_t> draw_content_id() {
  std::uint32_t id = 0;
  // VMware takes fffffffe for an id that was never changed.
  while (id == 0 || id >= kNoParent - 1) {
    if (::getrandom(&id, sizeof id, 0) != static_cast<ssize_t>(sizeof id)) {
      return os_error(errno, "cannot draw a random content id");
    }
  }
  return id;
}

std::string content_id_text(std::uint32_t cid) {
  std::array<char, 9> text = {};
  (void)std::snprintf(text.data(), text.size(), "%08x", cid);
  return text.data();
}

std::optional<std::uint32_t> content_id_from_text(const std::string& text) {
  std::uint32_t cid = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), cid, 16);
  if (text.size() != 8 || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return cid;
}

}  // namespace sluicebox::image::vmdk
