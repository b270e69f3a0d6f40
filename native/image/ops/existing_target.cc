#include "image/ops/existing_target.h"

#include <algorithm>

namespace sluicebox::image {

namespace {

constexpr std::uint64_t kZerosAtOnce = 64u << 20;  // between two looks at the cancel token

}  // namespace

Status ExistingTarget::zero_up_to(std::uint64_t offset) {
  while (reached_ < offset && !is_zero_) {
    TRY(cancel_.check());
    const std::uint64_t part = std::min(offset - reached_, kZerosAtOnce);
    TRY(image_.zero(reached_, part));
    reached_ += part;
  }
  return {};
}

Status ExistingTarget::write(std::uint64_t offset, Bytes bytes) {
  TRY(zero_up_to(offset));
  TRY(image_.write(offset, bytes));
  reached_ = offset + bytes.size();
  return {};
}

Status ExistingTarget::write_packed(std::uint64_t offset, Bytes) {
  return Error(ErrorCode::kInternal, "an image that is there takes bytes as they are").at(offset);
}

// Nothing is written yet: that is what follows for whatever lies before the next bytes.
Status ExistingTarget::write_zeros(std::uint64_t, std::uint64_t) { return {}; }

Status ExistingTarget::finish() {
  TRY(zero_up_to(size_));
  return image_.flush();
}

}  // namespace sluicebox::image
