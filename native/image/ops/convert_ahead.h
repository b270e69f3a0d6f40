// convert_ahead.h: reads parts of a disk some way ahead of who writes them, and finds out what of them has to be
// written, and how.
// Knows: chain views, packers, threads. Does not know: the target, why the parts matter.
// Threads: one operation's thread, and as many more as it is told to have, where the system gives them. Nobody writes
// to a layer meanwhile. What comes out does not depend on how many there are.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "image/aligned_buffer.h"
#include "image/chain.h"
#include "image/ops/convert_ranges.h"
#include "image/ops/convert_target.h"

namespace sluicebox::image {

enum class PartKind : std::uint8_t { kBytes, kZeros, kPacked };

struct ConvertPart {
  PartKind kind = PartKind::kBytes;
  DiskRange range;
  std::size_t place = 0;         // where it begins in `bytes`, or in `packed`
  std::size_t packed_bytes = 0;  // of one that is packed
};

// Some ranges of the disk, ascending, side by side in memory.
struct ConvertWindow {
  ConvertWindow(std::size_t size, bool compares) : bytes(size), backing(compares ? size : 0) {}

  std::vector<DiskRange> ranges;   // in whole grains, but for the last one of the disk
  std::uint64_t length = 0;        // of all together
  AlignedBuffer bytes;             // as the source shows them
  AlignedBuffer backing;           // as the new backing does
  std::vector<ConvertPart> parts;  // what to write, ascending
  std::vector<std::byte> packed;
  Status outcome;
};

struct ConvertShape {
  std::uint64_t size = 0;   // of the new disk
  std::uint64_t unit = 0;   // of the target
  std::uint64_t grain = 0;  // zeros and what the backing shows are left out in these; a multiple of `unit`
  bool everything = false;  // zeros are written as well
  unsigned threads = 1;
};

class ConvertAhead {
 public:
  static Result<std::unique_ptr<ConvertAhead>> make(const ConvertLayers& layers, const ConvertShape& shape,
                                                    const ConvertTarget& target);
  ~ConvertAhead();
  ConvertAhead(const ConvertAhead&) = delete;
  ConvertAhead& operator=(const ConvertAhead&) = delete;

  // How much one window holds: whole grains.
  std::uint64_t window() const { return window_; }
  // A window to put ranges into and begin(), unless all are under way.
  ConvertWindow* vacant();
  void begin();
  // The window that was begun first, ready to be written; none when none is under way. It becomes vacant with
  // release().
  ConvertWindow* front();
  void release();

 private:
  enum class State : std::uint8_t { kVacant, kWaiting, kRunning, kDone };
  struct Slot {
    std::unique_ptr<ConvertWindow> window;
    State state = State::kVacant;
    std::uint64_t number = 0;  // in the order they were begun
  };
  // What one thread works with: a view remembers where it was.
  struct Worker {
    ChainView source, backing;
    std::unique_ptr<UnitPacker> packer;
    std::vector<std::byte> last_unit;
  };
  class HelpTask;

  ConvertAhead(const ConvertShape& shape, std::vector<std::unique_ptr<Worker>> workers, const ConvertLayers& layers);
  Slot* claim() EXCLUDES(mutex_);
  void finish(Slot& slot) EXCLUDES(mutex_);
  void help();
  void prepare(ConvertWindow& window, Worker& worker) const;
  Status read_and_sort(ConvertWindow& window, Worker& worker) const;
  void sort_range(ConvertWindow& window, Worker& worker, DiskRange range, std::size_t place, bool compares) const;
  void add_bytes(ConvertWindow& window, Worker& worker, DiskRange run, std::size_t place) const;

  const ConvertShape shape_;
  const bool compares_, salvages_;
  std::uint64_t window_ = 0;
  std::unique_ptr<Worker> own_;
  Mutex mutex_;
  Condition done_;
  // The windows themselves belong to who claimed them, and before and after that to the operation's thread.
  std::vector<Slot> slots_ GUARDED_BY(mutex_);
  std::vector<std::unique_ptr<Worker>> helpers_ GUARDED_BY(mutex_);  // those that no thread has
  std::size_t slot_count_ = 0;
  std::uint64_t begun_ = 0, released_ = 0;  // the operation's thread's alone
  std::unique_ptr<ThreadPool> pool_;        // last: it ends before what it works on
};

}  // namespace sluicebox::image
