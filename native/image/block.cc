#include "image/block.h"

namespace sluicebox::image {

namespace {

Error no_snapshots(const Block& block) {
  return Error(ErrorCode::kUnsupported,
               std::string(format_name(block.format())) + " images have no internal snapshots");
}

}  // namespace

std::optional<std::string> Block::recorded_id() const {
  if (auto content = content_id()) return content;
  const std::string own = identity();
  return own.empty() ? std::optional<std::string>() : std::optional(own);
}

Result<std::unique_ptr<UnitPacker>> Block::make_packer() const {
  return Error(ErrorCode::kUnsupported, std::string(format_name(format())) + " images are not compressed");
}

Status Block::write_packed(std::uint64_t, Bytes) {
  return Error(ErrorCode::kUnsupported, std::string(format_name(format())) + " images are not compressed");
}

Result<std::optional<std::vector<PersistentBitmap>>> Block::bitmaps() const {
  return std::optional<std::vector<PersistentBitmap>>();
}

Result<std::unique_ptr<Block>> Block::open_snapshot(const std::string&) const { return no_snapshots(*this); }

Status Block::create_snapshot(const std::string&, ProgressSink&, const CancelToken&) { return no_snapshots(*this); }

Status Block::apply_snapshot(const std::string&, ProgressSink&, const CancelToken&) { return no_snapshots(*this); }

Status Block::remove_snapshot(const std::string&, ProgressSink&, const CancelToken&) { return no_snapshots(*this); }

Status Block::can_set_backing(const std::optional<BackingReference>&) const {
  return Error(ErrorCode::kUnsupported, std::string(format_name(format())) + " images have no backing");
}

Status Block::set_backing(const std::optional<BackingReference>& backing) { return can_set_backing(backing); }

Status Block::can_resize(std::uint64_t) const {
  return Error(ErrorCode::kUnsupported, std::string(format_name(format())) + " images cannot be resized");
}

Status Block::resize(std::uint64_t size) { return can_resize(size); }

Status Block::allocate(std::uint64_t, const CancelToken&) {
  return Error(ErrorCode::kUnsupported, std::string(format_name(format())) + " images cannot be resized");
}

Status Block::make_empty() {
  return Error(ErrorCode::kUnsupported, std::string(format_name(format())) + " images have no backing to show");
}

Result<CheckReport> Block::check(Repair, ProgressSink&, const CancelToken&) {
  return Error(ErrorCode::kUnsupported, std::string(format_name(format())) + " images have no metadata to check");
}

}  // namespace sluicebox::image
