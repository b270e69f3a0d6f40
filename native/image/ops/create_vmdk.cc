#include "image/ops/create_vmdk.h"

#include <algorithm>
#include <vector>

#include "image/formats/vmdk/stream_writer.h"
#include "image/formats/vmdk/vmdk.h"
#include "image/open_file.h"
#include "image/ops/describe.h"
#include "image/ops/unsynced_file.h"
#include "image/ops/write_plan.h"
#include "image/printable.h"

namespace sluicebox::image {

namespace {

Result<vmdk::PlanOptions> vmdk_plan_options(const NewFile& made, const VmdkRequest& request) {
  vmdk::PlanOptions plan;
  plan.virtual_size = request.size;
  plan.subformat = request.format.subformat;
  plan.grain_size = request.format.grain_size;
  plan.adapter = request.format.adapter;
  plan.cid = TRY(vmdk::draw_content_id());
  plan.name = last_part(made.path());
  const std::optional<BackingOption>& backing = request.options.backing;
  if (!backing) return plan;
  const std::optional<std::uint32_t> cid =
      request.backing_content_id ? vmdk::content_id_from_text(*request.backing_content_id) : std::nullopt;
  if (!cid) {
    return Error(ErrorCode::kUnsupported, "backing: its content id is recorded, and it was not opened to read it")
        .on(made.path());
  }
  plan.parent_hint = backing->path;
  plan.parent_cid = *cid;
  return plan;
}

Status write_planned(File& file, const vmdk::FilePlan& plan, const CancelToken& cancel) {
  TRY(write_plan(file, plan, cancel));
  return TRY(file.size()) < plan.data_bytes ? file.truncate(plan.data_bytes) : ok_status();
}

// Nobody sees the files yet: they become durable once, when they are whole.
Status fill(NewFile& made, std::vector<NewFile>& parts, const NewContent& content, const std::vector<Layer>& backing) {
  UnsyncedFile image(made.file());
  std::vector<std::unique_ptr<UnsyncedFile>> unsynced;
  const auto open_extent = [&](const std::string&) -> Result<File*> {
    unsynced.push_back(std::make_unique<UnsyncedFile>(parts[unsynced.size()].file()));
    return unsynced.back().get();
  };
  const std::unique_ptr<Block> block = TRY(vmdk::open_vmdk(image, {.writable = true, .open_extent = open_extent}));
  BlockTarget target(*block, content.compress);
  return content.write(target, block->size(), backing);
}

// A file that is written from its beginning to its end, each grain as it was packed.
class StreamTarget final : public ConvertTarget {
 public:
  StreamTarget(vmdk::StreamWriter& writer, bool has_backing) : writer_(writer), has_backing_(has_backing) {}

  std::uint64_t unit() const override { return writer_.grain_bytes(); }
  Result<std::unique_ptr<UnitPacker>> make_packer() const override { return std::unique_ptr<UnitPacker>(); }
  Status write(std::uint64_t offset, Bytes bytes) override {
    while (!bytes.empty()) {
      const std::uint64_t length = std::min<std::uint64_t>(bytes.size(), unit());
      TRY(writer_.write(offset, bytes.first(length)));
      offset += length;
      bytes = bytes.subspan(length);
    }
    return {};
  }
  Status write_packed(std::uint64_t, Bytes) override {
    return Error(ErrorCode::kInternal, "a stream packs its grains by itself");
  }
  // What is not there reads as zeros, or as the backing.
  Status write_zeros(std::uint64_t offset, std::uint64_t length) override {
    if (!has_backing_) return {};
    const std::vector<std::byte> zeros(unit());
    for (std::uint64_t done = 0; done < length; done += unit()) {
      TRY(writer_.write(offset + done, Bytes(zeros).first(std::min(unit(), length - done))));
    }
    return {};
  }
  Status finish() override { return writer_.finish(); }

 private:
  vmdk::StreamWriter& writer_;
  const bool has_backing_;
};

Status stream(File& file, const vmdk::PlanOptions& options, const NewContent& content,
              const std::vector<Layer>& backing) {
  UnsyncedFile unsynced(file);
  const auto writer = TRY(vmdk::StreamWriter::begin(unsynced, options));
  StreamTarget target(*writer, !backing.empty());
  return content.write(target, options.virtual_size, backing);
}

// The parts first, so that the descriptor never names what is not there.
Status publish_together(std::vector<NewFile>& parts, NewFile& image, CancelToken& cancel) {
  Status outcome;
  for (NewFile& part : parts) {
    part.keep_replaced();
    outcome = part.publish(cancel);
    if (!outcome.ok()) break;
  }
  if (outcome.ok()) outcome = image.publish(cancel);
  if (outcome.ok()) return outcome;
  for (NewFile& part : parts) part.retract();
  return outcome;
}

}  // namespace

Result<ImageInfo> create_vmdk(const std::string& path, NewFile& made, const VmdkRequest& request,
                              const std::vector<Layer>& backing, const NewContent* content, OperationContext& context) {
  const vmdk::PlanOptions options = TRY(vmdk_plan_options(made, request));
  std::vector<std::byte> scratch(TRY(vmdk::plan_scratch_size(options)));
  const vmdk::Plan plan = TRY(vmdk::plan_vmdk(options, scratch));

  std::vector<NewFile> parts;
  for (std::uint64_t i = 0; i < plan.extents; ++i) {
    TRY(context.cancel.check());
    const std::string name = vmdk::extent_file_name(options, i);
    // Beside it, named as the image is: with its folder, or without.
    std::string part_path = made.path();
    part_path.replace(part_path.size() - last_part(part_path).size(), std::string::npos, name);
    parts.push_back(TRY(NewFile::begin(part_path, request.options.overwrite, context)));
    TRY(write_planned(parts.back().file(), plan.extent_plan(i), context.cancel));
  }
  if (content != nullptr && options.subformat == vmdk::Subformat::kStreamOptimized) {
    TRY(stream(made.file(), options, *content, backing));
  } else {
    TRY(write_planned(made.file(), plan.image, context.cancel));
    if (content != nullptr) TRY(fill(made, parts, *content, backing));
  }

  // Opened once before it is published: what is described is what was written, not what was meant.
  std::size_t next = 0;
  const std::unique_ptr<Block> block = TRY(vmdk::open_vmdk(
      made.file(), {.open_extent = [&](const std::string&) -> Result<File*> { return &parts[next++].file(); },
                    .budget = context.metadata}));
  ImageInfo info = TRY(describe(path, made.file(), *block));
  if (info.backing) info.backing->exists = true;
  TRY(publish_together(parts, made, context.cancel));
  return info;
}

}  // namespace sluicebox::image
