#include "image/ops/convert_ahead.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "image/salvaged_disk.h"

namespace sluicebox::image {

namespace {

// Large enough that a system call costs little beside its copying, small enough for a core's own cache.
constexpr std::uint64_t kConvertWindow = 512u << 10;
// Of all windows together.
constexpr std::uint64_t kConvertMemory = 24u << 20;

}  // namespace

// One for each window that is begun; whether there still is one to take is seen when it runs.
class ConvertAhead::HelpTask final : public Task {
 public:
  explicit HelpTask(ConvertAhead& owner) : owner_(owner) {}
  void run() override { owner_.help(); }
  void failed() noexcept override {}  // help() lets nothing out
  void abandon() noexcept override {}

 private:
  ConvertAhead& owner_;
};

Result<std::unique_ptr<ConvertAhead>> ConvertAhead::make(const ConvertLayers& layers, const ConvertShape& shape,
                                                         const ConvertTarget& target) {
  std::vector<std::unique_ptr<Worker>> workers;
  for (unsigned i = 0; i < std::max(1u, shape.threads); ++i) {
    workers.push_back(std::make_unique<Worker>(Worker{.source = ChainView(layers.source, shape.size),
                                                      .backing = ChainView(layers.backing, shape.size),
                                                      .packer = TRY(target.make_packer()),
                                                      .last_unit = {}}));
  }
  return std::unique_ptr<ConvertAhead>(new ConvertAhead(shape, std::move(workers), layers));
}

ConvertAhead::ConvertAhead(const ConvertShape& shape, std::vector<std::unique_ptr<Worker>> workers,
                           const ConvertLayers& layers)
    : shape_(shape),
      compares_(!layers.backing.empty()),
      salvages_(layers.salvage),
      window_(std::max(kConvertWindow, shape.grain)) {
  own_ = std::move(workers.back());
  workers.pop_back();
  const std::uint64_t copies = 1 + (compares_ ? 1 : 0) + (own_->packer ? 1 : 0);
  const std::uint64_t most = std::max<std::uint64_t>(3, kConvertMemory / (window_ * copies));
  const std::size_t helpers = workers.size();
  {
    const MutexLock lock(mutex_);
    slots_.resize(std::min<std::uint64_t>(most, 2 * helpers + 2));
    slot_count_ = slots_.size();
    helpers_ = std::move(workers);
  }
  if (helpers != 0) pool_ = std::make_unique<ThreadPool>(helpers);
}

ConvertAhead::~ConvertAhead() = default;

ConvertWindow* ConvertAhead::vacant() {
  if (begun_ - released_ == slot_count_) return nullptr;
  const MutexLock lock(mutex_);
  Slot& slot = slots_[begun_ % slot_count_];
  if (!slot.window) slot.window = std::make_unique<ConvertWindow>(window_, compares_);
  slot.window->ranges.clear();
  slot.window->parts.clear();
  slot.window->packed.clear();
  slot.window->length = 0;
  return slot.window.get();
}

void ConvertAhead::begin() {
  {
    const MutexLock lock(mutex_);
    Slot& slot = slots_[begun_ % slot_count_];
    slot.state = State::kWaiting;
    slot.number = begun_;
  }
  ++begun_;
  if (pool_) pool_->submit(std::make_unique<HelpTask>(*this));
}

ConvertWindow* ConvertAhead::front() {
  if (begun_ == released_) return nullptr;
  const std::size_t oldest = released_ % slot_count_;
  while (true) {
    {
      const MutexLock lock(mutex_);
      if (slots_[oldest].state == State::kDone) return slots_[oldest].window.get();
    }
    // The oldest that nobody has: this one, or while a helper is at it a later one.
    if (Slot* slot = claim()) {
      prepare(*slot->window, *own_);
      finish(*slot);
      continue;
    }
    const MutexLock lock(mutex_);
    while (slots_[oldest].state == State::kRunning) done_.wait(mutex_);
  }
}

void ConvertAhead::release() {
  {
    const MutexLock lock(mutex_);
    slots_[released_ % slot_count_].state = State::kVacant;
  }
  ++released_;
}

// A slot stays where it is, and its window belongs to who claimed it until finish().
ConvertAhead::Slot* ConvertAhead::claim() {
  const MutexLock lock(mutex_);
  Slot* first = nullptr;
  for (Slot& slot : slots_) {
    if (slot.state == State::kWaiting && (first == nullptr || slot.number < first->number)) first = &slot;
  }
  if (first != nullptr) first->state = State::kRunning;
  return first;
}

void ConvertAhead::finish(Slot& slot) {
  const MutexLock lock(mutex_);
  slot.state = State::kDone;
  done_.notify_one();
}

void ConvertAhead::help() {
  std::unique_ptr<Worker> worker;
  {
    const MutexLock lock(mutex_);
    worker = std::move(helpers_.back());  // one for each thread of the pool
    helpers_.pop_back();
  }
  if (Slot* slot = claim()) {
    prepare(*slot->window, *worker);
    finish(*slot);
  }
  const MutexLock lock(mutex_);
  helpers_.push_back(std::move(worker));
}

void ConvertAhead::prepare(ConvertWindow& window, Worker& worker) const {
  try {
    window.outcome = read_and_sort(window, worker);
  } catch (...) {
    // Only allocations throw. It must be told as an error: on a helper nothing is above to catch it.
    window.outcome = Error(ErrorCode::kOutOfMemory, "out of memory");
  }
}

Status ConvertAhead::read_and_sort(ConvertWindow& window, Worker& worker) const {
  std::size_t place = 0;
  for (const DiskRange& range : window.ranges) {
    TRY(worker.source.read(range.offset, window.bytes.bytes().subspan(place, range.length)));
    bool compares = compares_;
    if (compares) {
      Status below = worker.backing.read(range.offset, window.backing.bytes().subspan(place, range.length));
      // What a damaged backing shows there, nobody knows: all is written.
      if (!below.ok() && !(salvages_ && is_damage(below.error()))) return below;
      compares = below.ok();
    }
    sort_range(window, worker, range, place, compares);
    place += range.length;
  }
  return {};
}

// Grains in a row that are to be treated alike become one part, or as many as they have units where they are packed.
void ConvertAhead::sort_range(ConvertWindow& window, Worker& worker, DiskRange range, std::size_t place,
                              bool compares) const {
  enum class Fate : std::uint8_t { kLeftOut, kZeros, kBytes };
  const auto fate_of = [&](std::uint64_t at) {
    const std::uint64_t length = std::min(shape_.grain, range.length - at);
    const Bytes grain = Bytes(window.bytes.bytes()).subspan(place + at, length);
    if (compares) {
      const Bytes below = Bytes(window.backing.bytes()).subspan(place + at, length);
      if (std::memcmp(grain.data(), below.data(), length) == 0) return Fate::kLeftOut;
    }
    if (shape_.everything || !all_zero(grain)) return Fate::kBytes;
    return compares_ ? Fate::kZeros : Fate::kLeftOut;
  };
  for (std::uint64_t at = 0; at < range.length;) {
    const Fate fate = fate_of(at);
    const std::uint64_t from = at;
    for (at += shape_.grain; at < range.length && fate_of(at) == fate;) at += shape_.grain;
    at = std::min(at, range.length);
    const DiskRange run{.offset = range.offset + from, .length = at - from};
    if (fate == Fate::kZeros) window.parts.push_back({.kind = PartKind::kZeros, .range = run});
    if (fate == Fate::kBytes) add_bytes(window, worker, run, place + from);
  }
}

void ConvertAhead::add_bytes(ConvertWindow& window, Worker& worker, DiskRange run, std::size_t place) const {
  if (!worker.packer) {
    window.parts.push_back({.kind = PartKind::kBytes, .range = run, .place = place});
    return;
  }
  for (std::uint64_t at = 0; at < run.length; at += shape_.unit) {
    const DiskRange part{.offset = run.offset + at, .length = std::min(shape_.unit, run.length - at)};
    Bytes unit = Bytes(window.bytes.bytes()).subspan(place + at, part.length);
    if (part.length < shape_.unit) {
      worker.last_unit.assign(shape_.unit, std::byte{0});
      std::ranges::copy(unit, worker.last_unit.begin());
      unit = worker.last_unit;
    }
    const std::optional<Bytes> packed = worker.packer->pack(unit);
    if (!packed) {
      window.parts.push_back({.kind = PartKind::kBytes, .range = part, .place = place + at});
      continue;
    }
    window.parts.push_back(
        {.kind = PartKind::kPacked, .range = part, .place = window.packed.size(), .packed_bytes = packed->size()});
    window.packed.insert(window.packed.end(), packed->begin(), packed->end());
  }
}

}  // namespace sluicebox::image
