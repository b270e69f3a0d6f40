// existing_target.h: an image that is there already, as what a conversion writes to.
// Knows: an open image. Does not know: the source. Threads: the operation's thread.
#pragma once

#include <cstdint>
#include <memory>

#include "base/cancel.h"
#include "image/ops/convert_target.h"
#include "image/ops/open_image.h"

namespace sluicebox::image {

// Writes over the first `size` bytes of the disk; what lies behind stays.
class ExistingTarget final : public ConvertTarget {
 public:
  // Borrows the image. `is_zero`: it reads as zeros, and none have to be written.
  ExistingTarget(OpenImage& image, std::uint64_t size, bool is_zero, const CancelToken& cancel)
      : image_(image), size_(size), is_zero_(is_zero), cancel_(cancel) {}

  std::uint64_t unit() const override { return image_.allocation_unit(); }
  Result<std::unique_ptr<UnitPacker>> make_packer() const override { return std::unique_ptr<UnitPacker>(); }
  Status write(std::uint64_t offset, Bytes bytes) override;
  Status write_packed(std::uint64_t offset, Bytes packed) override;
  Status write_zeros(std::uint64_t offset, std::uint64_t length) override;
  Status finish() override;

 private:
  // What lies before it and no call covered: it is to read as zeros, whatever the image held there.
  Status zero_up_to(std::uint64_t offset);

  OpenImage& image_;
  const std::uint64_t size_;
  const bool is_zero_;
  const CancelToken& cancel_;
  std::uint64_t reached_ = 0;
};

}  // namespace sluicebox::image
