// chain.h: opens an image and what stands behind it, under one policy, and shows the layers as one disk.
// Knows: formats, locks, path policy. Does not know: operations.
// Threads: one operation's thread; an open image belongs to one operation.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/path_policy.h"
#include "base/result.h"
#include "image/block.h"
#include "image/file.h"
#include "image/ops/context.h"

namespace sluicebox::image {

inline constexpr std::size_t kMaxChainDepth = 16;  // images, the overlay included; for chains that others made

enum class Access : std::uint8_t { kRead, kWrite, kShared };  // kShared: read without locks

// One open layer: its file (locked unless kShared) and the format over it.
struct Layer {
  std::string path;           // as named by the caller or by the image above
  std::string resolved_path;  // absolute
  FileIdentity identity;
  std::unique_ptr<File> file;
  std::unique_ptr<Block> block;
};

// Opens a file that the caller named: regular or block device, never a FIFO or socket; probes its format when none is
// given.
Result<Layer> open_layer(const std::string& path, std::optional<DiskFormat> format, Access access,
                         OperationContext& context);

// The layers below `overlay` for the reference `backing` (none: empty), nearest first. Refuses by policy, by cycle
// (device and inode, `overlay` included), by depth, and a recorded backing without a format. `named_by_caller`: the
// first path came from the caller.
struct OpenBacking {
  const Layer* overlay;
  std::optional<BackingReference> backing;
  bool named_by_caller = false;
};
Result<std::vector<Layer>> open_backing_chain(const OpenBacking& request, OperationContext& context);

// How `reference`, recorded in (or meant for) the image at `image_path`, reads as a path of its own.
std::string resolve_backing_path(const std::string& image_path, const std::string& reference);

// Several layers as one read-only disk, nearest first. Past the end of a layer everything below is hidden by zeros, as
// guests see it.
class ChainView {
 public:
  // Borrows: the layers outlive the view. `size` is the disk's; layers may be shorter or longer.
  ChainView(std::vector<Block*> layers, std::uint64_t size);

  std::uint64_t size() const { return size_; }
  Status read(std::uint64_t offset, MutableBytes out);
  // kUnallocated is not an answer here: what no layer has is kZero. `depth` is the layer that answered.
  struct Extent {
    bool zero = true;
    std::uint64_t length = 0;
    std::size_t depth = 0;
  };
  Result<Extent> status(std::uint64_t offset, std::uint64_t length);

 private:
  std::vector<Block*> layers_;
  std::uint64_t size_;
};

}  // namespace sluicebox::image
