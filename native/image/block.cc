#include "image/block.h"

namespace sluicebox::image {

Status Block::can_set_backing(const std::optional<BackingReference>&) const {
  return Error(ErrorCode::kUnsupported, std::string(format_name(format())) + " images have no backing");
}

Status Block::set_backing(const std::optional<BackingReference>& backing) { return can_set_backing(backing); }

Status Block::can_resize(std::uint64_t) const {
  return Error(ErrorCode::kUnsupported, std::string(format_name(format())) + " images cannot be resized");
}

Status Block::resize(std::uint64_t size) { return can_resize(size); }

Status Block::make_empty() {
  return Error(ErrorCode::kUnsupported, std::string(format_name(format())) + " images have no backing to show");
}

Result<CheckReport> Block::check(Repair, ProgressSink&, const CancelToken&) {
  return Error(ErrorCode::kUnsupported, std::string(format_name(format())) + " images have no metadata to check");
}

}  // namespace sluicebox::image
