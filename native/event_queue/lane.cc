#include "event_queue/lane.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

namespace sluicebox::event_queue {

Result<std::shared_ptr<Lane>> Lane::open(std::shared_ptr<Source> source, Options options) {
  if (options.high_water_mark == 0 || (options.reserved && !source->assign_bytes(options.high_water_mark))) {
    return Error(ErrorCode::kInvalidArgument, "a lane's mark is not within the bytes that its source has reserved");
  }
  return std::make_shared<Lane>(Private(), std::move(source), std::move(options));
}

Lane::Lane(Private, std::shared_ptr<Source> source, Options options)
    : options_(std::move(options)), queue_(source->queue().shared_from_this()), source_(std::move(source)) {
  queue_->count_lanes(1, 0);
}

Lane::~Lane() {
  // The last owner: nobody is left to be told of room.
  queue_->count_bytes(-static_cast<std::int64_t>(held_));
  queue_->count_lanes(-1, stalled_ ? -1 : 0);
  queue_->blocks().put(std::move(head_));
}

std::size_t Lane::write(Bytes bytes) {
  std::size_t accepted = 0;
  std::shared_ptr<Source> source;
  {
    MutexLock lock(mutex_);
    if (discarded_ || finished_) return bytes.size();
    accepted = append(bytes.first(std::min(bytes.size(), room())));
    if (accepted < bytes.size()) stall();
    if (accepted > 0) source = tell();
  }
  post(source);
  return accepted;
}

std::size_t Lane::append(Bytes bytes) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    Block* block = open_block();
    const std::size_t count = std::min(bytes.size() - done, Block::kSize - block->end);
    std::memcpy(block->bytes.data() + block->end, bytes.data() + done, count);
    block->end += count;
    done += count;
    held_ += count;
    queue_->count_bytes(static_cast<std::int64_t>(count));
  }
  return done;
}

// The last block, with room in it.
Block* Lane::open_block() {
  if (tail_ == nullptr || tail_->end == Block::kSize) {
    auto block = queue_->blocks().get();
    Block* added = block.get();
    (tail_ == nullptr ? head_ : tail_->next) = std::move(block);
    tail_ = added;
  }
  return tail_;
}

void Lane::stall() {
  if (!std::exchange(stalled_, true)) queue_->count_lanes(0, 1);
}

MutableBytes Lane::space(std::size_t limit) {
  MutexLock lock(mutex_);
  if (room() == 0) {
    stall();
    return {};
  }
  Block* block = open_block();
  writing_ = true;
  const std::size_t count = std::min({limit, room(), Block::kSize - block->end});
  return MutableBytes(block->bytes).subspan(block->end, count);
}

void Lane::commit(std::size_t count) {
  std::shared_ptr<Source> source;
  {
    MutexLock lock(mutex_);
    writing_ = false;
    // Discarded while it was written: the block went with the rest.
    if (discarded_ || count == 0) {
      spare_.reset();
      return;
    }
    tail_->end += count;
    held_ += count;
    queue_->count_bytes(static_cast<std::int64_t>(count));
    source = tell();
  }
  post(source);
}

std::size_t Lane::free_bytes() const {
  MutexLock lock(mutex_);
  return discarded_ ? static_cast<std::size_t>(options_.high_water_mark) : room();
}

// The source to post to, once the lock is let go; null when the reader knows already.
std::shared_ptr<Source> Lane::tell() {
  if (std::exchange(told_, true)) return nullptr;
  return source_;
}

void Lane::post(const std::shared_ptr<Source>& source) {
  // kCoalesced: a record from before a read is still queued; the reader who gets it finds these bytes too.
  if (source != nullptr) source->post(options_.channel, {.kind = RecordKind::kReadable, .flags = options_.number});
}

void Lane::finish() {
  std::shared_ptr<Source> source;
  {
    MutexLock lock(mutex_);
    if (std::exchange(finished_, true)) return;
    source = tell();
  }
  post(source);
}

Lane::Read Lane::read(MutableBytes out) {
  Read result;
  std::unique_ptr<Block> blocks;
  std::shared_ptr<Source> spent;
  bool room_made = false;
  {
    MutexLock lock(mutex_);
    result.bytes = std::min(out.size(), held_);
    blocks = detach(result.bytes, out);
    result.more = held_ > 0;
    result.ended = finished_ && held_ == 0;
    told_ = result.more;
    if (result.ended) spent = std::move(source_);
    if (room() > 0) room_made = unstall();
  }
  // Whole blocks are ours now: copied with the lock let go, so that the producer goes on beside us.
  std::size_t done = 0;
  for (const Block* block = blocks.get(); block != nullptr; block = block->next.get()) {
    // Not memcpy: where nothing is asked for, `out` may have no address.
    std::copy_n(block->bytes.data() + block->begin, block->end - block->begin, out.data() + done);
    done += block->end - block->begin;
  }
  if (blocks != nullptr) queue_->blocks().put(std::move(blocks));
  if (room_made && options_.on_room) options_.on_room();
  return result;
}

// Takes the first `count` bytes off the chain. The blocks that they cover whole are returned; the part of a block at
// the end is copied to its place in `out`.
std::unique_ptr<Block> Lane::detach(std::size_t count, MutableBytes out) {
  std::size_t left = count;
  std::unique_ptr<Block> whole;
  std::unique_ptr<Block>* last = &whole;
  while (head_ != nullptr && head_->end - head_->begin <= left && !(writing_ && head_.get() == tail_)) {
    left -= head_->end - head_->begin;
    *last = std::move(head_);
    head_ = std::move((*last)->next);
    last = &(*last)->next;
  }
  if (head_ == nullptr) tail_ = nullptr;
  if (left > 0) {
    std::memcpy(out.data() + (count - left), head_->bytes.data() + head_->begin, left);
    head_->begin += left;
  }
  held_ -= count;
  queue_->count_bytes(-static_cast<std::int64_t>(count));
  return whole;
}

// True when a producer waits for the room that there now is.
bool Lane::unstall() {
  if (!std::exchange(stalled_, false)) return false;
  queue_->count_lanes(0, -1);
  return true;
}

Lane::Chunk Lane::read_available(std::size_t limit) {
  // One reader: between these two lines what is held can only grow, or be discarded.
  const std::size_t size = std::min(limit, held());
  Chunk chunk{.data = std::make_unique_for_overwrite<std::byte[]>(size), .read = {}};
  chunk.read = read({chunk.data.get(), size});
  return chunk;
}

void Lane::discard() {
  std::unique_ptr<Block> blocks;
  std::shared_ptr<Source> spent;
  bool room_made = false;
  {
    MutexLock lock(mutex_);
    discarded_ = true;
    // A block that is being written stays until that is over.
    if (writing_)
      spare_ = std::move(head_);
    else
      blocks = std::move(head_);
    tail_ = nullptr;
    queue_->count_bytes(-static_cast<std::int64_t>(std::exchange(held_, 0)));
    spent = std::move(source_);
    room_made = unstall();
  }
  queue_->blocks().put(std::move(blocks));
  if (room_made && options_.on_room) options_.on_room();
}

std::size_t Lane::held() const {
  MutexLock lock(mutex_);
  return held_;
}

}  // namespace sluicebox::event_queue
