#include "image/ops/compare_ahead.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace sluicebox::image {

namespace {

// Both sides of a window stay in a core's own cache, more or less, and a system call costs little beside its copying.
constexpr std::uint64_t kWindow = 512u << 10;
// A thread costs less than the reading of this much.
constexpr std::uint64_t kWorthAThread = 8u << 20;

}  // namespace

// One for each window that is begun; whether there still is one to take is seen when it runs.
class CompareAhead::HelpTask final : public Task {
 public:
  explicit HelpTask(CompareAhead& owner) : owner_(owner) {}
  void run() override { owner_.help(); }
  void failed() noexcept override {}  // help() lets nothing out
  void abandon() noexcept override {}

 private:
  CompareAhead& owner_;
};

CompareAhead::CompareAhead(const ChainView& old_view, const ChainView& new_view, std::uint64_t unit,
                           std::uint64_t total)
    : unit_(unit),
      window_(std::max(kWindow, unit)),
      own_views_{.before = old_view, .after = new_view},
      helper_views_(own_views_) {
  if (total >= kWorthAThread) helper_ = std::make_unique<ThreadPool>(1);
}

CompareAhead::~CompareAhead() = default;

ComparedWindow* CompareAhead::vacant() {
  if (begun_ == kSlots) return nullptr;
  const MutexLock lock(mutex_);
  Slot& slot = slots_[(oldest_ + begun_) % kSlots];
  if (!slot.window) slot.window = std::make_unique<ComparedWindow>(window_, unit_);
  slot.window->ranges.clear();
  slot.window->length = 0;
  return slot.window.get();
}

void CompareAhead::begin() {
  {
    const MutexLock lock(mutex_);
    slots_[(oldest_ + begun_) % kSlots].state = State::kWaiting;
  }
  ++begun_;
  if (helper_) helper_->submit(std::make_unique<HelpTask>(*this));
}

ComparedWindow* CompareAhead::front() {
  if (begun_ == 0) return nullptr;
  while (true) {
    {
      const MutexLock lock(mutex_);
      if (slots_[oldest_].state == State::kDone) return slots_[oldest_].window.get();
    }
    // The oldest that nobody has: this one, or while the helper is at it the next.
    if (const std::optional<std::size_t> slot = claim()) {
      ComparedWindow* window = nullptr;
      {
        const MutexLock lock(mutex_);
        window = slots_[*slot].window.get();
      }
      compare(*window, own_views_);
      finish(*slot);
      continue;
    }
    const MutexLock lock(mutex_);
    while (slots_[oldest_].state == State::kRunning) done_.wait(mutex_);
  }
}

void CompareAhead::release() {
  {
    const MutexLock lock(mutex_);
    slots_[oldest_].state = State::kVacant;
  }
  oldest_ = (oldest_ + 1) % kSlots;
  --begun_;
}

std::optional<std::size_t> CompareAhead::claim() {
  const MutexLock lock(mutex_);
  // In the order of the ring they were begun, but this thread may not know where it starts.
  std::optional<std::size_t> first;
  for (std::size_t i = 0; i < kSlots; ++i) {
    if (slots_[i].state != State::kWaiting) continue;
    const std::uint64_t at = slots_[i].window->ranges.front().offset;
    if (!first || at < slots_[*first].window->ranges.front().offset) first = i;
  }
  if (first) slots_[*first].state = State::kRunning;
  return first;
}

void CompareAhead::finish(std::size_t slot) {
  const MutexLock lock(mutex_);
  slots_[slot].state = State::kDone;
  done_.notify_one();
}

void CompareAhead::help() {
  const std::optional<std::size_t> slot = claim();
  if (!slot) return;
  ComparedWindow* window = nullptr;
  {
    const MutexLock lock(mutex_);
    window = slots_[*slot].window.get();
  }
  compare(*window, helper_views_);
  finish(*slot);
}

void CompareAhead::compare(ComparedWindow& window, Views& views) const {
  try {
    window.outcome = read_and_compare(window, views);
  } catch (...) {
    // Only allocations throw. It must be told as an error: on the helper nothing is above to catch it.
    window.outcome = Error(ErrorCode::kOutOfMemory, "out of memory");
  }
}

Status CompareAhead::read_and_compare(ComparedWindow& window, Views& views) const {
  const MutableBytes before = window.before.bytes().first(window.length);
  const MutableBytes after = window.after.bytes().first(window.length);
  std::uint64_t at = 0;
  for (const DiskRange& range : window.ranges) {
    TRY(views.before.read(range.offset, before.subspan(at, range.length)));
    TRY(views.after.read(range.offset, after.subspan(at, range.length)));
    at += range.length;
  }
  window.differs.assign(window.differs.size(), false);
  if (std::memcmp(before.data(), after.data(), window.length) == 0) return {};
  for (at = 0; at < window.length; at += unit_) {
    const std::uint64_t part = std::min(unit_, window.length - at);
    window.differs[at / unit_] = std::memcmp(before.data() + at, after.data() + at, part) != 0;
  }
  return {};
}

}  // namespace sluicebox::image
