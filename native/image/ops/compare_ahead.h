// compare_ahead.h: reads parts of the disk through two chains and compares them, some way ahead of who takes the
// answers. Knows: chain views, threads. Does not know: why the parts matter, what is written because of them. Threads:
// one operation's thread, and one more that it reads with, where there is much to read and the system gives one. Nobody
// writes to a layer of either chain meanwhile.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "image/aligned_buffer.h"
#include "image/chain.h"
#include "image/ops/differing_ranges.h"

namespace sluicebox::image {

// Some ranges of the disk, ascending, side by side in memory.
struct ComparedWindow {
  ComparedWindow(std::size_t bytes, std::uint64_t unit) : before(bytes), after(bytes), differs(bytes / unit) {}

  std::vector<DiskRange> ranges;  // in whole units, but for the last one of the disk
  std::uint64_t length = 0;       // of all together
  AlignedBuffer before;           // as the old chain shows them
  AlignedBuffer after;            // as the new chain shows them
  std::vector<bool> differs;      // one a unit
  Status outcome;                 // of reading
};

class CompareAhead {
 public:
  // `total` is how much there will be to compare, as far as is known.
  CompareAhead(const ChainView& old_view, const ChainView& new_view, std::uint64_t unit, std::uint64_t total);
  ~CompareAhead();
  CompareAhead(const CompareAhead&) = delete;
  CompareAhead& operator=(const CompareAhead&) = delete;

  // How much one window holds: whole units.
  std::uint64_t window() const { return window_; }
  // A window to put ranges into and begin(), unless all are under way.
  ComparedWindow* vacant();
  void begin();
  // The window that was begun first, compared; none when none is under way. It becomes vacant with release().
  ComparedWindow* front();
  void release();

 private:
  // Enough for both threads to be busy while a third window is written from, and a fourth waits.
  static constexpr std::size_t kSlots = 4;
  enum class State : std::uint8_t { kVacant, kWaiting, kRunning, kDone };
  struct Slot {
    std::unique_ptr<ComparedWindow> window;
    State state = State::kVacant;
  };
  // What a thread reads with: a view remembers where it was.
  struct Views {
    ChainView before, after;
  };
  class HelpTask;

  std::optional<std::size_t> claim() EXCLUDES(mutex_);
  void finish(std::size_t slot) EXCLUDES(mutex_);
  void compare(ComparedWindow& window, Views& views) const;
  Status read_and_compare(ComparedWindow& window, Views& views) const;
  void help();

  const std::uint64_t unit_;
  const std::uint64_t window_;
  Views own_views_, helper_views_;
  Mutex mutex_;
  Condition done_;
  // The windows themselves belong to who claimed them, and before and after that to the operation's thread.
  std::array<Slot, kSlots> slots_ GUARDED_BY(mutex_);
  std::size_t oldest_ = 0;  // the operation's thread's alone, as is `begun_`
  std::size_t begun_ = 0;
  std::unique_ptr<ThreadPool> helper_;  // last: it ends before what it works on
};

}  // namespace sluicebox::image
