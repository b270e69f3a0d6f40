// extent.h: a part of a VMDK disk: the interface that the disk reads and writes its parts through.
// Knows: offsets within the part. Does not know: descriptors, other parts.
// Threads: as block.h.
#pragma once

#include <cstdint>
#include <memory>

#include "base/cancel.h"
#include "base/result.h"
#include "image/block.h"
#include "image/file.h"
#include "image/formats/vmdk/header.h"
#include "image/metadata_budget.h"

namespace sluicebox::image::vmdk {

class Extent {
 public:
  virtual ~Extent() = default;

  virtual std::uint64_t unit() const = 0;  // bytes that are allocated together
  virtual bool compressed() const { return false; }
  virtual const File* file() const = 0;  // nullptr: none
  // Ranges inside the extent; what is written is whole units, but for what the end of the extent cuts off.
  virtual Status read(std::uint64_t offset, MutableBytes out) = 0;
  virtual Result<BlockStatus> status(std::uint64_t offset, std::uint64_t length) = 0;
  virtual Status write(std::uint64_t offset, Bytes data) = 0;
  virtual Status write_zeros(std::uint64_t offset, std::uint64_t length) = 0;
  virtual Status may_be_written() const { return {}; }
  // Looks at all metadata, so that no write lands in a grain that two entries share. The first write does it otherwise.
  virtual Status prepare(ProgressSink&, const CancelToken&) { return {}; }
  virtual Status flush() = 0;
  virtual void abandon() {}
  // kUnsupported where every byte is there always.
  virtual Status make_empty() = 0;
  virtual Status check(Repair, CheckReport&, ProgressSink&, const CancelToken&) { return {}; }
};

// Each of them shows `sectors` sectors.
struct SparseOptions {
  std::uint64_t sectors = 0;
  bool salvage = false;  // as OpenOptions says
  std::shared_ptr<MetadataBudget> budget = nullptr;
};
Result<std::unique_ptr<Extent>> open_sparse(File& file, const SparseHeader& header, const SparseOptions& options);
// Grains that were compressed when they were written, once: read only.
Result<std::unique_ptr<Extent>> open_stream(File& file, const SparseHeader& header, const SparseOptions& options);
// The file's bytes from `offset` on.
Result<std::unique_ptr<Extent>> open_flat(File& file, std::uint64_t offset, std::uint64_t sectors);
std::unique_ptr<Extent> make_zero_extent();

}  // namespace sluicebox::image::vmdk
