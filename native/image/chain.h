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
#include "image/open_file.h"
#include "image/ops/context.h"

namespace sluicebox::image {

enum class Access : std::uint8_t { kRead, kWrite, kShared };  // kShared: read without locks
inline Access reading(bool shared) { return shared ? Access::kShared : Access::kRead; }

// What an image is opened for: some want to know of features, or to mend damage, that make the bytes unreadable, or to
// have what can be read beside it.
enum class Purpose : std::uint8_t { kContent, kInfo, kRepair, kSalvage };

// One open layer: its file (locked unless kShared) and the format over it.
struct Layer {
  std::string path;  // as named by the caller or by the image above
  ImageDirectories directories;
  std::string resolved_path;  // absolute, without symlinks
  FileIdentity identity;
  bool regular = true;             // no block device
  bool locks_unavailable = false;  // asked for, but the file system has none
  std::unique_ptr<File> file;
  // Of a disk that consists of several files (vmdk): the others, each once.
  struct Beside {
    FileIdentity identity;
    std::unique_ptr<File> file;
  };
  std::vector<Beside> files_beside;
  std::unique_ptr<Block> block;
};

// Opens a file that the caller named: regular or block device, never a FIFO or socket; probes its format when none is
// given, and takes what no header tells for raw.
Result<Layer> open_layer(const std::string& path, std::optional<DiskFormat> format, Access access,
                         OperationContext& context, Purpose purpose = Purpose::kContent);

// The layers below `overlay` for the reference `backing` (none: empty), nearest first, each opened for reading but for
// one. Refuses by policy, by cycle (device and inode, `overlay` included), by depth, and a recorded backing without a
// format.
struct OpenBacking {
  // Only its paths, directories and identity count: it need not be open (nor exist, with identity 0).
  const Layer* overlay;
  std::optional<BackingReference> backing;
  // The first path came from the caller: it may lie anywhere, and without a format its header is asked (never for raw).
  bool named_by_caller = false;
  std::vector<FileIdentity> also_named = {};  // what else the caller named in this call: images may name it too
  Access access = Access::kRead;              // or kShared
  std::optional<FileIdentity> written = std::nullopt;  // the one layer that is opened for writing
  Purpose purpose = Purpose::kContent;                 // or kInfo, or kSalvage
};
Result<std::vector<Layer>> open_backing_chain(const OpenBacking& request, OperationContext& context);

// What stands behind `reference`, recorded in `overlay` (or meant for it by a caller), found and judged.
Result<FoundFile> find_backing(const Layer& overlay, const std::string& reference, bool named_by_caller,
                               const std::vector<FileIdentity>& also_named, const PathPolicy& policy);

// What is asked of a backing that a caller names and that is not opened: that it is a file and not the overlay itself,
// and that the caller may name it. It need not be there.
Status judge_unopened_backing(const Layer& overlay, const std::string& reference, OperationContext& context);

// Whether the file that `overlay` records as its backing is there and one that its images may name; opens nothing.
bool backing_exists(const Layer& overlay, const BackingReference& backing, OperationContext& context);

// Adds to `reference` by what its recorder is to know `backing` again.
void note_identity(BackingReference& reference, const Layer& backing);

// How `reference`, recorded in (or meant for) the image at `image_path`, reads as a path of its own. For people: files
// are looked for in the directories that were open when the image was.
std::string resolve_backing_path(const std::string& image_path, const std::string& reference);

// Several layers as one read-only disk, nearest first. Past the end of a layer everything below is hidden by zeros, as
// guests see it. Nobody writes to a layer while a view of it lives: answers are remembered.
class ChainView {
 public:
  // Borrows: the layers outlive the view. `size` is the disk's; layers may be shorter or longer.
  ChainView(std::vector<Block*> layers, std::uint64_t size);

  std::uint64_t size() const { return size_; }
  Status read(std::uint64_t offset, MutableBytes out);
  // kUnallocated is not an answer here: what no layer has is zero. `depth` is the layer that answered (a layer answers
  // for what lies past its end), or the number of layers when none has anything.
  struct Extent {
    bool zero = true;
    std::uint64_t length = 0;
    std::size_t depth = 0;
  };
  // As long as the answer stays the same, at most `length`; a walk over the disk costs each layer's metadata once.
  Result<Extent> status(std::uint64_t offset, std::uint64_t length);

 private:
  struct Cursor {
    std::uint64_t start = 0, end = 0;
    Mapping mapping = Mapping::kUnallocated;
  };
  Result<BlockStatus> layer_status(std::size_t depth, std::uint64_t offset, std::uint64_t length);
  Result<Extent> top_extent(std::uint64_t offset, std::uint64_t length);

  std::vector<Block*> layers_;
  std::vector<Cursor> cursors_;  // one a layer: its last answer
  std::uint64_t size_;
  Extent known_;  // the last answer of all, for [known_start_, known_end_)
  std::uint64_t known_start_ = 0, known_end_ = 0;
};

}  // namespace sluicebox::image
