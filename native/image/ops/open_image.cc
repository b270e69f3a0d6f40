#include "image/ops/open_image.h"

#include <algorithm>
#include <cstring>

#include "base/checked.h"
#include "image/printable.h"

namespace sluicebox::image {

Result<std::shared_ptr<OpenImage>> OpenImage::open(const std::string& path, const OpenImageOptions& options,
                                                   OperationContext& context) {
  const Access access = options.readonly ? Access::kRead : Access::kWrite;
  Layer image = TRY(open_layer(path, options.format, access, context));
  if (!options.readonly) {
    TRY(image.block->may_be_written(Writing::kBytes));
    TRY(image.block->prepare_to_write(Writing::kBytes, context.progress, context.cancel));
  }
  ImageChain chain = TRY(open_image_chain(std::move(image), {}, Access::kRead, context));
  return std::shared_ptr<OpenImage>(new OpenImage(std::move(chain), options));
}

OpenImage::OpenImage(ImageChain chain, const OpenImageOptions& options)
    : path_(chain.layers.front().path),
      format_(chain.layers.front().block->format()),
      identity_(chain.layers.front().identity),
      size_(chain.size()),
      unit_(chain.layers.front().block->allocation_unit()),
      readonly_(options.readonly),
      chain_(std::move(chain)) {}

Status OpenImage::check(std::uint64_t offset, std::uint64_t length, bool writes) const {
  if (!chain_) return Error(ErrorCode::kInvalidArgument, "image: " + printable(path_) + " was closed").on(path_);
  if (writes && readonly_) {
    return Error(ErrorCode::kInvalidArgument, "image: " + printable(path_) + " was opened to be read only")
        .on(path_)
        .advise("open it without readonly");
  }
  const auto end = checked_add(offset, length);
  if (end && *end <= size_) return {};
  return Error(ErrorCode::kInvalidArgument,
               "length: " + std::to_string(length) + " bytes from " + std::to_string(offset) +
                   " on reach past the end of the disk, which has " + std::to_string(size_))
      .on(path_);
}

Status OpenImage::read(std::uint64_t offset, MutableBytes out) {
  const MutexLock lock(mutex_);
  TRY(check(offset, out.size(), false));
  // A view of its own each time: the image may have been written since the last one.
  return ChainView(chain_->blocks(), size_).read(offset, out);
}

Status OpenImage::write_part(std::uint64_t offset, std::uint64_t length, const std::byte* data) {
  const std::uint64_t start = align_down(offset, unit_);
  std::vector<std::byte> whole(std::min(unit_, size_ - start));
  TRY(ChainView(chain_->blocks(), size_).read(start, whole));
  std::byte* part = whole.data() + (offset - start);
  if (data != nullptr)
    std::memcpy(part, data, length);
  else
    std::memset(part, 0, length);
  return block().write(start, whole);
}

Status OpenImage::write(std::uint64_t offset, Bytes data) {
  const MutexLock lock(mutex_);
  TRY(check(offset, data.size(), true));
  while (!data.empty()) {
    const std::uint64_t in_unit = offset % unit_;
    const bool to_end = offset + data.size() == size_;
    std::uint64_t length = to_end ? data.size() : align_down(data.size(), unit_);
    if (in_unit != 0 || length == 0) {
      length = std::min<std::uint64_t>(data.size(), unit_ - in_unit);
      TRY(write_part(offset, length, data.data()));
    } else {
      TRY(block().write(offset, data.first(length)));
    }
    offset += length;
    data = data.subspan(length);
  }
  return {};
}

Status OpenImage::zero(std::uint64_t offset, std::uint64_t length) {
  const MutexLock lock(mutex_);
  TRY(check(offset, length, true));
  while (length != 0) {
    const std::uint64_t in_unit = offset % unit_;
    const bool to_end = offset + length == size_;
    std::uint64_t part = to_end ? length : align_down(length, unit_);
    if (in_unit != 0 || part == 0) {
      part = std::min(length, unit_ - in_unit);
      TRY(write_part(offset, part, nullptr));
    } else {
      part = TRY(zero_units(offset, part));
    }
    offset += part;
    length -= part;
  }
  return {};
}

// Some of them, from the first on. Where nothing stands behind, what is not there is zeros already.
Result<std::uint64_t> OpenImage::zero_units(std::uint64_t offset, std::uint64_t length) {
  bool blank = false;
  if (chain_->layers.size() == 1) {
    const BlockStatus status = TRY(block().status(offset, length));
    const std::uint64_t whole = offset + status.length == size_ ? status.length : align_down(status.length, unit_);
    blank = whole != 0 && status.mapping != Mapping::kData;
    length = std::min(length, std::max(whole, unit_));
  }
  if (!blank) TRY(block().write_zeros(offset, length));
  return length;
}

Status OpenImage::flush() {
  const MutexLock lock(mutex_);
  TRY(check(0, 0, false));
  return readonly_ ? ok_status() : block().flush();
}

Status OpenImage::close() {
  const MutexLock lock(mutex_);
  if (!chain_) return {};
  Status flushed = readonly_ ? ok_status() : block().flush();
  chain_.reset();
  return flushed;
}

}  // namespace sluicebox::image
