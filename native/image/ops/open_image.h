// open_image.h: an image that stays open: its guest's bytes, to be read and written wherever a program likes.
// Knows: the chain, the block interface. Does not know: who keeps it open.
// Threads: any, one after the other. It holds the image's lock, and its backing images', until it is closed.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/mutex.h"
#include "base/result.h"
#include "image/ops/context.h"
#include "image/ops/image_chain.h"

namespace sluicebox::image {

struct OpenImageOptions {
  std::optional<DiskFormat> format = std::nullopt;
  bool readonly = false;
};

class OpenImage {
 public:
  // Until it returns a cancel is heard; whether one counts that comes later is the caller's to say.
  static Result<std::shared_ptr<OpenImage>> open(const std::string& path, const OpenImageOptions& options,
                                                 OperationContext& context);
  // What was written and not flushed is given up, as by a crash: close() first.
  ~OpenImage() = default;
  OpenImage(const OpenImage&) = delete;
  OpenImage& operator=(const OpenImage&) = delete;

  DiskFormat format() const { return format_; }
  std::uint64_t size() const { return size_; }
  std::uint64_t allocation_unit() const { return unit_; }
  FileIdentity identity() const { return identity_; }
  bool readonly() const { return readonly_; }

  // Within the disk, else kInvalidArgument; kInvalidArgument too for an image that is closed, or to be read only.
  Status read(std::uint64_t offset, MutableBytes out) EXCLUDES(mutex_);
  // Of any offset and length: what an allocation unit holds beside is kept. Durable after flush().
  Status write(std::uint64_t offset, Bytes data) EXCLUDES(mutex_);
  Status zero(std::uint64_t offset, std::uint64_t length) EXCLUDES(mutex_);
  Status flush() EXCLUDES(mutex_);
  // Flushes, and lets go of files and locks, whether that succeeded or not. Again: nothing.
  Status close() EXCLUDES(mutex_);

 private:
  OpenImage(ImageChain chain, const OpenImageOptions& options);
  Status check(std::uint64_t offset, std::uint64_t length, bool writes) const REQUIRES(mutex_);
  // A range inside one allocation unit; `data` null: zeros.
  Status write_part(std::uint64_t offset, std::uint64_t length, const std::byte* data) REQUIRES(mutex_);
  Result<std::uint64_t> zero_units(std::uint64_t offset, std::uint64_t length) REQUIRES(mutex_);
  Block& block() REQUIRES(mutex_) { return *chain_->layers.front().block; }

  const std::string path_;
  const DiskFormat format_;
  const FileIdentity identity_;
  const std::uint64_t size_, unit_;
  const bool readonly_;
  Mutex mutex_;
  std::optional<ImageChain> chain_ GUARDED_BY(mutex_);  // nothing: closed
};

}  // namespace sluicebox::image
