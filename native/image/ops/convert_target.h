// convert_target.h: where a conversion writes to: a disk from its beginning to its end, each part once.
// Knows: the block interface, for the target over it; a format whose file can only be written in one go has its own.
// Does not know: the source, files, threads.
// Threads: the operation's thread; make_packer() before the first write.
#pragma once

#include <cstdint>
#include <memory>

#include "base/bytes.h"
#include "base/result.h"
#include "image/block.h"

namespace sluicebox::image {

class ConvertTarget {
 public:
  virtual ~ConvertTarget() = default;

  // Ranges begin and end at its multiples, but for the end of the disk.
  virtual std::uint64_t unit() const = 0;
  // For one thread of the conversion. Null: this target takes bytes as they are.
  virtual Result<std::unique_ptr<UnitPacker>> make_packer() const = 0;

  // Ascending, and no range twice. What no call covers reads as zeros, or as the backing where there is one.
  virtual Status write(std::uint64_t offset, Bytes bytes) = 0;
  // One unit, as a packer made it.
  virtual Status write_packed(std::uint64_t offset, Bytes packed) = 0;
  virtual Status write_zeros(std::uint64_t offset, std::uint64_t length) = 0;
  // After the last range: the image is complete, though not durable.
  virtual Status finish() = 0;
};

// A new image that is written in place. Borrows it.
class BlockTarget final : public ConvertTarget {
 public:
  BlockTarget(Block& image, bool compress) : image_(image), compress_(compress) {}

  std::uint64_t unit() const override { return compress_ ? image_.packed_unit() : image_.allocation_unit(); }
  Result<std::unique_ptr<UnitPacker>> make_packer() const override {
    if (!compress_) return std::unique_ptr<UnitPacker>();
    return image_.make_packer();
  }
  Status write(std::uint64_t offset, Bytes bytes) override { return image_.write(offset, bytes); }
  Status write_packed(std::uint64_t offset, Bytes packed) override { return image_.write_packed(offset, packed); }
  Status write_zeros(std::uint64_t offset, std::uint64_t length) override { return image_.write_zeros(offset, length); }
  Status finish() override { return image_.flush(); }

 private:
  Block& image_;
  const bool compress_;
};

}  // namespace sluicebox::image
