// block.h: the one interface under every operation: the guest-visible bytes of ONE layer, and where they come from.
// Knows: bytes, extents, the backing reference as text. Does not know: other layers (chain.h stacks them), locks,
// operations. Threads: one thread at a time; read() and status() from several at once while nobody writes.
//
// Contract for every implementation:
// 1. status() covers the whole disk without gaps; adjacent calls make progress; its cost is in metadata, not in bytes.
// 2. read() of an unallocated range of this layer gives zeros (the chain supplies the backing's bytes).
// 3. write() and write_zeros() cover whole units of allocation_unit() (the last unit may be cut by the end of the
// disk), so that
//    no layer ever needs another one's bytes; chain.h does copy-on-write for smaller writes.
// 4. Nothing is durable before flush(). Killed at any moment, the file opens, checks without corruption (leaks at
// most), and each
//    unit reads as before or after.
// 5. A range whose metadata is damaged is a typed error on read, never another range's bytes; no write goes through it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/cancel.h"
#include "base/progress.h"
#include "base/result.h"
#include "image/disk_format.h"
#include "image/persistent_bitmap.h"

namespace sluicebox::image {

enum class Mapping : std::uint8_t {
  kUnallocated,  // this layer has nothing here: the backing shows through, or zeros
  kZero,         // this layer says zeros
  kData,         // this layer holds bytes
};

struct BlockStatus {
  Mapping mapping = Mapping::kUnallocated;
  std::uint64_t length = 0;  // from the offset asked for; > 0
  bool compressed = false;
  // Where in the layer's file: of data that is not compressed, and of what is no data yet but has a place there.
  std::optional<std::uint64_t> host_offset;
};

// The backing as the image records it: text, not a path that was opened.
struct BackingReference {
  std::string path;
  std::optional<std::string> format;  // as recorded; may name a format that this engine does not build
  // What Block::recorded_id() of that image was when the reference was made, where the format records it.
  std::optional<std::string> content_id = std::nullopt;
  // When its file was last written, in seconds since 1970, for formats that record it.
  std::optional<std::int64_t> modified = std::nullopt;
  bool operator==(const BackingReference&) const = default;
};

struct CheckProblem {
  std::string kind;  // e.g. "refcount-too-low", "leaked-cluster", "offset-past-end"
  std::optional<std::uint64_t> offset;
  std::string message;
};

struct CheckReport {
  std::uint64_t corruptions = 0, leaks = 0, corruptions_fixed = 0, leaks_fixed = 0;
  std::uint64_t total_clusters = 0, allocated_clusters = 0, fragmented_clusters = 0, compressed_clusters = 0;
  std::uint64_t image_end_offset = 0;
  std::vector<CheckProblem> problems;  // the first 1,000; the counts are complete

  void note(std::string kind, std::uint64_t offset, std::string message) {
    constexpr std::size_t kMaxProblems = 1000;
    if (problems.size() < kMaxProblems) problems.push_back({std::move(kind), offset, std::move(message)});
  }
};

enum class Repair : std::uint8_t { kNone, kLeaks, kAll };

struct InternalSnapshot {
  std::string id, name;
  std::int64_t seconds = 0;
  std::uint32_t nanoseconds = 0;
  std::uint64_t vm_state_bytes = 0;
  std::uint64_t vm_clock_ns = 0;
  std::optional<std::uint64_t> icount = std::nullopt;  // instructions executed; absent: nobody counted
};

// What `info` shows of one layer beyond size and backing. Format-specific values travel as name and value.
using SpecificScalar = std::variant<bool, std::uint64_t, std::string, std::vector<std::string>>;
using SpecificObject = std::vector<std::pair<std::string, SpecificScalar>>;
struct SpecificValue {
  std::string name;  // under the name that qemu-img's JSON gives it
  std::variant<bool, std::uint64_t, std::string, std::vector<SpecificObject>> value;
};
struct LayerInfo {
  std::optional<std::uint64_t> cluster_bytes;
  bool dirty = false, corrupt = false, encrypted = false;
  std::uint64_t other_files_bytes = 0;  // what files beside the image's own take, of a disk that has several
  std::vector<InternalSnapshot> snapshots;
  std::vector<SpecificValue> specific;
};

// Makes one unit of packed_unit() bytes smaller. For one thread; several work at once while the image is written.
class UnitPacker {
 public:
  virtual ~UnitPacker() = default;
  // `unit` is whole: what lies behind the disk's end is zeros. Returns the packed bytes, which last until the next
  // call; nothing when it does not get smaller.
  virtual std::optional<Bytes> pack(Bytes unit) = 0;
};

// What is to be written: the backing reference alone, or the guest's bytes.
enum class Writing : std::uint8_t { kBacking, kBytes };

class Block {
 public:
  virtual ~Block() = default;

  virtual DiskFormat format() const = 0;
  virtual std::uint64_t size() const = 0;             // guest-visible bytes
  virtual std::uint64_t allocation_unit() const = 0;  // a power of two
  virtual LayerInfo info() const = 0;

  virtual Status read(std::uint64_t offset, MutableBytes out) = 0;
  // `offset` < size(); the answer does not reach past offset + length.
  virtual Result<BlockStatus> status(std::uint64_t offset, std::uint64_t length) = 0;

  // Whether many more bytes are mapped than the file takes space for, as after preallocation of metadata: then what the
  // file has a hole for reads as zeros, and it pays to look.
  virtual Result<bool> maps_holes() const { return false; }

  virtual Status write(std::uint64_t offset, Bytes data) = 0;
  // Afterwards the range reads as zeros whatever the backing holds.
  virtual Status write_zeros(std::uint64_t offset, std::uint64_t length) = 0;
  virtual Status flush() = 0;
  // For images that hold compressed units. kUnsupported where the format, or this image, has none.
  virtual Result<std::unique_ptr<UnitPacker>> make_packer() const;
  // What is packed whole: an allocation unit, or several.
  virtual std::uint64_t packed_unit() const { return allocation_unit(); }
  // One such unit, as a packer of this image made it; read() gives what was packed.
  virtual Status write_packed(std::uint64_t offset, Bytes packed);
  // Whether the image's own state allows writing it. Writes nothing, and needs no writable image.
  virtual Status may_be_written(Writing) const { return {}; }
  // Repairs and examines what has to be before the first write; a write that finds it undone does it by itself.
  virtual Status prepare_to_write(Writing, ProgressSink&, const CancelToken&) { return {}; }
  // Gives up what was written since the last flush() and, as far as that goes, the space it took. Nothing is written
  // afterwards.
  virtual void abandon() {}

  // What tells this content from any other, for overlays that record it of their backing; nothing where the format has
  // no such thing. It changes before the first write of a session.
  virtual std::optional<std::string> content_id() const { return std::nullopt; }
  // Changes it now, durable on return, and not again with the first write. Nothing happens where there is none.
  virtual Status renew_content_id() { return {}; }

  virtual std::optional<BackingReference> backing() const { return std::nullopt; }
  // By which an image above knows this one, in formats that have such an id; else empty.
  virtual std::string identity() const { return {}; }
  // What an overlay over this image records of it, to know it again.
  std::optional<std::string> recorded_id() const;
  // kImageChain when `below`, found under the recorded name, is another image than the one that this was made over.
  virtual Status accepts_backing(const Block&) const { return {}; }
  // kUnsupported where the format has no backing, kInvalidArgument where the text does not fit: known before any write.
  virtual Status can_set_backing(const std::optional<BackingReference>& backing) const;
  // One atomic header update, durable on return. Writes before it were flushed by the caller.
  virtual Status set_backing(const std::optional<BackingReference>& backing);
  // Whether the disk can be `size` bytes large, a multiple of 512: kUnsupported where the format or what the image
  // holds is in the way, kInvalidArgument where the size is. Known before any write.
  virtual Status can_resize(std::uint64_t size) const;
  // Before a disk grows to `size`: from here on writes may reach up to there, in whole units, though nobody sees them
  // yet and the disk ends where it did. Nothing that lies there from before is shown when it has grown.
  virtual Status make_room(std::uint64_t) { return {}; }
  // One atomic update, durable on return. Growing comes after make_room(), and the caller flushed what it wrote there;
  // shrinking gives the space of what lay beyond back afterwards.
  virtual Status resize(std::uint64_t size);
  // Gives each unit from `offset` on that has no place in the file yet one where it reads as zeros; durable on return.
  // kUnsupported for formats that do not grow.
  virtual Status allocate(std::uint64_t offset, const CancelToken& cancel);
  // Lets go of all that the image maps, so that it shows its backing everywhere, and gives the space back; durable on
  // return. Killed at any moment, each unit reads as before or as the backing. kUnsupported for formats without one.
  virtual Status make_empty();

  // Bytes shown by internal snapshots depend on the backing, so a safe rebase has to know.
  virtual bool has_internal_snapshots() const { return false; }
  // The disk as an internal snapshot kept it, for reading; the same file, which outlives both. By id or else by name.
  virtual Result<std::unique_ptr<Block>> open_snapshot(const std::string& id_or_name) const;

  // Those of the image's own file that mean something; nothing: an image of this kind keeps none.
  virtual Result<std::optional<std::vector<PersistentBitmap>>> bitmaps() const;

  // Internal snapshots of the disk as it is. Each is durable on return; killed at any moment, the disk and all
  // snapshots read as before or after. kUnsupported for formats without; kSnapshotExists, kSnapshotNotFound.
  virtual Status create_snapshot(const std::string& name, ProgressSink& progress, const CancelToken& cancel);
  // The disk is what it was then; what it is now is lost.
  virtual Status apply_snapshot(const std::string& id_or_name, ProgressSink& progress, const CancelToken& cancel);
  virtual Status remove_snapshot(const std::string& id_or_name, ProgressSink& progress, const CancelToken& cancel);

  // kUnsupported for formats without metadata. Writes only what `repair` allows.
  virtual Result<CheckReport> check(Repair repair, ProgressSink& progress, const CancelToken& cancel);
};

}  // namespace sluicebox::image
