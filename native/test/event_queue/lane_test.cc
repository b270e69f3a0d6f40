#include "event_queue/lane.h"

#include <random>
#include <set>
#include <thread>
#include <vector>

#include "support.h"

namespace sluicebox::event_queue::test {
namespace {

constexpr std::uint64_t kMark = 256 * 1024;

struct Fixture {
  std::shared_ptr<Queue> queue = make_queue(16, 4 << 20);
  std::atomic<int> rooms{0};

  std::shared_ptr<Lane> lane(std::uint64_t mark = kMark, std::uint8_t number = 0) {
    auto source = queue->reserve({.channels = 2, .bytes = mark}).value();
    return Lane::open(std::move(source),
                      {.channel = number, .number = number, .high_water_mark = mark, .on_room = [this] { ++rooms; }})
        .value();
  }
};

// Byte n of a stream: any slip by a block, a word or a byte shows.
std::byte pattern(std::uint64_t n) { return static_cast<std::byte>((n * 2654435761U) >> 13); }

std::vector<std::byte> stream(std::uint64_t from, std::size_t count) {
  std::vector<std::byte> bytes(count);
  for (std::size_t i = 0; i < count; ++i) bytes[i] = pattern(from + i);
  return bytes;
}

std::size_t mismatches(Bytes bytes, std::uint64_t from) {
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) wrong += bytes[i] != pattern(from + i) ? 1 : 0;
  return wrong;
}

}  // namespace

TEST_CASE_FIXTURE(Fixture, "Q2: a lane never holds more than its mark, and an unread one takes no other's room") {
  auto full = lane(100'000);
  auto other = lane(100'000, 1);
  CHECK(full->write(stream(0, 70'000)) == 70'000);
  CHECK(full->write(stream(0, 70'000)) == 30'000);
  CHECK(full->write(stream(0, 1)) == 0);
  CHECK(full->held() == 100'000);
  CHECK(queue->stats().bytes == 100'000);
  CHECK(other->write(stream(0, 100'000)) == 100'000);
  CHECK(queue->stats().bytes == 200'000);
  CHECK(queue->stats().bytes_reserved == 200'000);
  std::vector<std::byte> out(40'000);
  CHECK(full->read(out).bytes == 40'000);
  CHECK(full->write(stream(0, 70'000)) == 40'000);
  CHECK(full->held() == 100'000);
}

TEST_CASE_FIXTURE(Fixture, "Q2: a lane's mark comes out of its source's reservation") {
  auto source = queue->reserve({.channels = 2, .bytes = 1000}).value();
  auto first = Lane::open(source, {.channel = 0, .number = 0, .high_water_mark = 600, .on_room = {}});
  CHECK(first.ok());
  CHECK(Lane::open(source, {.channel = 1, .number = 1, .high_water_mark = 401, .on_room = {}}).error().code ==
        ErrorCode::kInvalidArgument);
  CHECK(Lane::open(source, {.channel = 1, .number = 1, .high_water_mark = 0, .on_room = {}}).error().code ==
        ErrorCode::kInvalidArgument);
  CHECK(Lane::open(source, {.channel = 1, .number = 1, .high_water_mark = 400, .on_room = {}}).ok());
}

TEST_CASE_FIXTURE(Fixture, "Q6: ten thousand small writes are one record and one wake-up") {
  auto stdout_lane = lane();
  const auto line = stream(0, 20);
  for (int i = 0; i < 10'000; ++i) stdout_lane->write(line);
  CHECK(queue->stats().events == 1);
  CHECK(queue->stats().wakeups == 1);
  Record batch[8];
  REQUIRE(queue->take(batch) == 1);
  CHECK(batch[0].kind == RecordKind::kReadable);
  CHECK(stdout_lane->read_available(kMark).read.bytes == 200'000);
}

TEST_CASE_FIXTURE(Fixture, "Q7: a lane says readable again after a read that left nothing, and not before") {
  auto out = lane();
  Record batch[8];
  std::byte two[2];
  CHECK(out->write(stream(0, 3)) == 3);
  CHECK(queue->take(batch) == 1);
  auto read = out->read(two);
  CHECK(read.bytes == 2);
  CHECK(read.more);
  CHECK(out->write(stream(3, 1)) == 1);  // the reader knows that bytes are left
  CHECK(queue->take(batch) == 0);
  read = out->read(two);
  CHECK(read.bytes == 2);
  CHECK_FALSE(read.more);
  CHECK(out->write(stream(4, 1)) == 1);
  CHECK(queue->take(batch) == 1);

  // A reader who is early: the record that is still queued speaks for the later bytes too.
  CHECK(out->read_available(kMark).read.bytes == 1);
  CHECK(out->write(stream(5, 1)) == 1);
  CHECK(out->read_available(kMark).read.bytes == 1);
  CHECK(out->write(stream(6, 1)) == 1);
  CHECK(queue->take(batch) == 1);
  CHECK(out->read_available(kMark).read.bytes == 1);
}

TEST_CASE_FIXTURE(Fixture, "Q12: a flooding lane delays another's completion by one pass at most") {
  auto flood = lane();
  auto operation = Operation::open(*queue, Operation::Progress::kNo).value();
  const auto bytes = stream(0, 1000);
  flood->write(bytes);
  Record batch[4];
  // Each pass: the flood's record is dispatched and read, and the flood goes on during the pass.
  for (int pass = 0; pass < 10; ++pass) {
    const std::size_t count = queue->take(batch);
    int readable = 0;
    for (std::size_t i = 0; i < count; ++i) {
      flood->write(bytes);
      if (pass == 5) operation->complete(nullptr);
      readable += batch[i].kind == RecordKind::kReadable ? 1 : 0;
      while (flood->read_available(500).read.more) {
      }
      for (int n = 0; n < 100; ++n) flood->write(bytes);
    }
    CHECK(readable == 1);
    CHECK(queue->stats().depth <= 2);
    CHECK((count == 2) == (pass == 6));
  }
}

TEST_CASE("Q13: with capacity 8 and every other slot taken, each execution and operation delivers and settles") {
  auto queue = make_queue(8, 1 << 20);
  auto execution = queue->reserve({.channels = 4, .bytes = 1 << 20}).value();
  auto hog = queue->reserve({.channels = 2}).value();
  auto operation = Operation::open(*queue, Operation::Progress::kYes).value();
  hog->post(0, {.kind = RecordKind::kControl});
  hog->post(1, {.kind = RecordKind::kControl});
  REQUIRE_FALSE(Operation::open(*queue, Operation::Progress::kNo).ok());
  std::shared_ptr<Lane> lanes[2];
  for (std::uint8_t i = 0; i < 2; ++i) {
    lanes[i] = Lane::open(execution, {.channel = i, .number = i, .high_water_mark = 1 << 19, .on_room = {}}).value();
    lanes[i]->write(stream(0, 1000));
  }
  operation->report(progress(1));
  CHECK(execution->post(2, {.kind = RecordKind::kControl}) == Posted::kQueued);
  for (auto& each : lanes) each->finish();
  CHECK(execution->post(3, {.kind = RecordKind::kTerminal}) == Posted::kQueued);
  operation->complete(nullptr);
  CHECK(queue->stats().depth == 8);
  std::vector<RecordKind> kinds;
  drain(*queue, [&](const Record& record) {
    kinds.push_back(record.kind);
    if (record.kind == RecordKind::kReadable) {
      const auto chunk = lanes[record.flags]->read_available(1 << 20);
      CHECK(chunk.read.bytes == 1000);
      CHECK(chunk.read.ended);
    }
    if (record.kind == RecordKind::kTerminal || record.kind == RecordKind::kCompletion) {
      CHECK(queue->claim(record.handle()).has_value());
    }
  });
  using enum RecordKind;
  CHECK(kinds == std::vector{kControl, kControl, kReadable, kReadable, kProgress, kControl, kTerminal, kCompletion});
  execution.reset();
  operation.reset();
  hog.reset();
  CHECK(queue->outstanding() == 0);
}

TEST_CASE_FIXTURE(Fixture, "Q18: draining a full lane below its mark calls for more, once a stall, and only its own") {
  auto out = lane(1000);
  int others = 0;
  auto source = queue->reserve({.channels = 1, .bytes = 1000}).value();
  auto other =
      Lane::open(source, {.channel = 0, .number = 1, .high_water_mark = 1000, .on_room = [&] { ++others; }}).value();
  other->write(stream(0, 2000));
  std::byte buffer[400];
  CHECK(out->write(stream(0, 1000)) == 1000);
  out->read(buffer);
  CHECK(rooms == 0);  // full, but nobody was turned away
  for (int stall = 1; stall <= 3; ++stall) {
    CHECK(out->write(stream(0, 1000)) < 1000);
    CHECK(out->write(stream(0, 1)) == 0);
    CHECK(rooms == stall - 1);
    out->read(buffer);
    CHECK(rooms == stall);
    out->read(buffer);
    CHECK(rooms == stall);
  }
  CHECK(others == 0);
}

TEST_CASE_FIXTURE(Fixture, "Q18: a producer that stops when told so and goes on when called is never left waiting") {
  constexpr std::uint64_t kTotal = 8 << 20;
  Mutex mutex;
  Condition changed;
  int room = 0;
  auto source = queue->reserve({.channels = 1, .bytes = 100'000}).value();
  auto out = Lane::open(source, {.channel = 0,
                                 .number = 0,
                                 .high_water_mark = 100'000,
                                 .on_room =
                                     [&] {
                                       MutexLock lock(mutex);
                                       ++room;
                                       changed.notify_all();
                                     }})
                 .value();
  source.reset();
  CountingBell bell;
  queue->attach_bell(&bell);
  std::atomic<int> stalls{0};
  std::atomic<bool> left_waiting{false};
  std::thread producer([&] {
    std::mt19937_64 random(7);
    std::uint64_t sent = 0;
    while (sent < kTotal && !left_waiting) {
      const auto bytes = stream(sent, std::min<std::uint64_t>(1 + random() % 90'000, kTotal - sent));
      const std::size_t accepted = out->write(bytes);
      sent += accepted;
      if (accepted == bytes.size()) continue;
      ++stalls;
      MutexLock lock(mutex);
      while (room == 0 && !left_waiting) {
        if (!changed.wait_until(mutex, patience())) left_waiting = true;
      }
      --room;
    }
    out->finish();
  });
  std::uint64_t got = 0;
  std::size_t wrong = 0;
  bool ended = false;
  int seen = 0;
  while (!ended && !left_waiting) {
    if (!bell.wait_past(seen)) break;
    seen = bell.rings();
    drain(*queue, [&](const Record&) {
      Lane::Chunk chunk;
      do {
        chunk = out->read_available(70'000);
        wrong += mismatches({chunk.data.get(), chunk.read.bytes}, got);
        got += chunk.read.bytes;
      } while (chunk.read.more);
      ended = ended || chunk.read.ended;
    });
  }
  if (!ended) left_waiting = true;
  producer.join();
  INFO(describe(*queue));
  CHECK_FALSE(left_waiting);
  CHECK(got == kTotal);
  CHECK(wrong == 0);
  CHECK(room == 0);
  CHECK(stalls > 0);
  drain(*queue);
  CHECK(queue->outstanding() == 0);  // the end was read: the reservation is let go, though the lane lives
  CHECK(queue->stats().bytes == 0);
}

TEST_CASE_FIXTURE(Fixture, "H13: what is read equals what was written, whatever the sizes on either side") {
  std::mt19937_64 random(seed("H13"));
  auto out = lane();
  std::uint64_t sent = 0;
  std::uint64_t got = 0;
  std::size_t wrong = 0;
  std::vector<std::byte> buffer(kMark);
  for (int step = 0; step < 4000; ++step) {
    const std::size_t size = random() % 3 == 0 ? random() % 70'000 : random() % 200;
    if (random() % 2 == 0) {
      sent += out->write(stream(sent, size));
    } else {
      const auto read = out->read(std::span(buffer).first(size));
      wrong += mismatches(std::span(buffer).first(read.bytes), got);
      got += read.bytes;
      CHECK(read.more == (got < sent));
    }
    REQUIRE(out->held() == sent - got);
  }
  CHECK(wrong == 0);
}

TEST_CASE_FIXTURE(Fixture, "H9: the end of a lane follows its last byte, and an empty lane's end is told as well") {
  auto out = lane();
  auto silent = lane(kMark, 1);
  out->write(stream(0, 10));
  out->finish();
  out->finish();
  silent->finish();
  CHECK(queue->stats().depth == 2);
  CHECK(silent->read_available(10).read.ended);
  std::byte half[5];
  CHECK_FALSE(out->read(half).ended);
  CHECK(out->read(half).ended);
  CHECK(out->read(half).bytes == 0);
  CHECK(out->write(stream(0, 10)) == 10);  // after the end: accepted and thrown away
  CHECK(out->held() == 0);
}

TEST_CASE_FIXTURE(
    Fixture, "H9: a producer that had nothing to say after all leaves nothing to be read, nor an address to copy to") {
  auto out = lane();
  REQUIRE_FALSE(out->space(10).empty());
  out->commit(0);
  CHECK(out->read({}).bytes == 0);
  CHECK_FALSE(out->read({}).more);
  out->write(stream(0, 3));
  CHECK(out->read_available(10).read.bytes == 3);
}

TEST_CASE_FIXTURE(Fixture, "H9: a discarded lane holds nothing up: its producer goes on, its reservation is let go") {
  auto out = lane(1000);
  CHECK(out->write(stream(0, 2000)) == 1000);
  CHECK(rooms == 0);
  out->discard();
  CHECK(rooms == 1);
  CHECK(out->write(stream(0, 5000)) == 5000);
  out->finish();
  CHECK(out->held() == 0);
  CHECK(out->read_available(100).read.bytes == 0);
  out->discard();
  CHECK(rooms == 1);
  CHECK(queue->stats().bytes == 0);
  drain(*queue);
  CHECK(queue->outstanding() == 0);
}

TEST_CASE_FIXTURE(Fixture,
                  "a drained lane holds no block: memory is taken with the first byte and goes with the last") {
  BlockPool pool;
  std::vector<std::unique_ptr<Block>> blocks;
  for (std::size_t i = 0; i < BlockPool::kSpare + 5; ++i) blocks.push_back(pool.get());
  CHECK(pool.spare() == 0);
  for (auto& block : blocks) pool.put(std::move(block));
  CHECK(pool.spare() == BlockPool::kSpare);
  auto block = pool.get();
  CHECK(pool.spare() == BlockPool::kSpare - 1);
  CHECK(block->end == 0);
  CHECK(block->next == nullptr);
}

}  // namespace sluicebox::event_queue::test
