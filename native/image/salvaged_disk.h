// salvaged_disk.h: a disk that is damaged, as far as it can be read.
// Knows: chain views. Does not know: files, what it is read for.
// Threads: read() and status() from several at once, while nobody writes to a layer; unreadable() when they are done.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "base/cancel.h"
#include "base/mutex.h"
#include "image/disk_view.h"
#include "image/shared_chain_view.h"

namespace sluicebox::image {

// What may be read around; other errors say nothing of the disk.
inline bool is_damage(const Error& error) {
  return error.code == ErrorCode::kImageCorrupt || error.code == ErrorCode::kIo;
}

// Parts of a disk that could not be read.
struct UnreadableParts {
  struct Part {
    std::uint64_t start = 0, length = 0;
  };
  std::uint64_t bytes = 0;  // of all
  std::vector<Part> parts;  // ascending and apart; 1,000 of them at most
};

class SalvagedDisk final : public DiskView {
 public:
  // Borrows: the layers, nearest first, and `cancel` outlive this one.
  SalvagedDisk(const std::vector<Block*>& layers, const CancelToken& cancel)
      : view_(layers, layers.front()->size()), cancel_(cancel) {}

  std::uint64_t size() const override { return view_.size(); }
  // What is damaged, or fails to be read, reads as zeros, sector by sector of 512. Other errors are told.
  Status read(std::uint64_t offset, MutableBytes out) override EXCLUDES(mutex_);
  // What is not known is data: who reads it finds out.
  Result<BlockStatus> status(std::uint64_t offset, std::uint64_t length) override;

  // Of all that was read.
  UnreadableParts unreadable() const EXCLUDES(mutex_);

 private:
  void note(std::uint64_t start, std::uint64_t length) EXCLUDES(mutex_);

  SharedChainView view_;
  const CancelToken& cancel_;  // a disk that fails may take seconds for each sector
  mutable Mutex mutex_;
  std::map<std::uint64_t, std::uint64_t> lost_ GUARDED_BY(mutex_);  // where each part starts and ends
  std::uint64_t lost_bytes_ GUARDED_BY(mutex_) = 0;
};

}  // namespace sluicebox::image
