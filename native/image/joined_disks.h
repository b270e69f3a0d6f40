// joined_disks.h: several disks one after the other, as one to be read.
// Knows: chain views. Does not know: files, what it is read for.
// Threads: read() and status() from several at once, while nobody writes to a layer.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "image/disk_view.h"
#include "image/shared_chain_view.h"

namespace sluicebox::image {

class JoinedDisks final : public DiskView {
 public:
  // Borrows: the layers of each disk, nearest first, outlive this one. kInvalidArgument when all together are larger
  // than a file can be.
  static Result<std::unique_ptr<JoinedDisks>> join(std::vector<std::vector<Block*>> disks);

  std::uint64_t size() const override { return size_; }
  Status read(std::uint64_t offset, MutableBytes out) override;
  Result<BlockStatus> status(std::uint64_t offset, std::uint64_t length) override;

 private:
  struct Disk {
    std::uint64_t start = 0;
    std::unique_ptr<SharedChainView> view;
  };
  JoinedDisks(std::vector<Disk> disks, std::uint64_t size) : disks_(std::move(disks)), size_(size) {}
  const Disk& disk_at(std::uint64_t offset) const;

  const std::vector<Disk> disks_;  // of those that have a size
  const std::uint64_t size_;
};

}  // namespace sluicebox::image
