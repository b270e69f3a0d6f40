// disk_view.h: a disk that is made up of others, to be read only.
// Knows: blocks, chain views. Does not know: files, what it is read for.
// Threads: read() and status() from several at once, while nobody writes to a layer.
#pragma once

#include <cstdint>

#include "image/block.h"
#include "image/shared_chain_view.h"

namespace sluicebox::image {

class DiskView : public Block {
 public:
  DiskFormat format() const final { return DiskFormat::kRaw; }
  std::uint64_t allocation_unit() const final { return 512; }
  LayerInfo info() const final { return {}; }
  Status write(std::uint64_t offset, Bytes) final { return read_only(offset); }
  Status write_zeros(std::uint64_t offset, std::uint64_t) final { return read_only(offset); }
  Status flush() final { return {}; }

 protected:
  static BlockStatus status_of(const ChainView::Extent& extent) {
    BlockStatus status;
    status.mapping = extent.zero ? Mapping::kZero : Mapping::kData;
    status.length = extent.length;
    return status;
  }

 private:
  static Error read_only(std::uint64_t offset) {
    return Error(ErrorCode::kInternal, "a view of disks is only read").at(offset);
  }
};

}  // namespace sluicebox::image
