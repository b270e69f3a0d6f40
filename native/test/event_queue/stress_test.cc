#include <random>
#include <thread>
#include <vector>

#include "base/thread_pool.h"
#include "event_queue/lane.h"
#include "support.h"

namespace sluicebox::event_queue::test {
namespace {

struct World {
  std::shared_ptr<Queue> queue = make_queue(64, 1 << 20, 50);
  CountingBell bell;
  Ends ends;
  std::atomic<int> payloads{0};
  std::atomic<int> opened{0};
  std::atomic<int> settled{0};
  std::atomic<int> drained_records{0};
};

struct Work final : Task {
  Work(World& the_world, std::unique_ptr<Operation> the_operation, std::uint64_t the_seed)
      : world(the_world), operation(std::move(the_operation)), random(the_seed) {}
  void run() override {
    for (std::uint64_t i = random() % 20; i > 0; --i) {
      operation->report(progress(i));
      if (operation->cancel().cancelled()) break;
    }
    const auto choice = random() % 8;
    if (choice == 0) throw std::bad_alloc();
    if (choice == 1) return;  // the last word is said by the destructor
    if (choice == 2) operation->cancel().try_commit();
    ++world.payloads;
    operation->complete(std::make_unique<TestPayload>(world.ends));
  }
  void failed() noexcept override { operation->complete(nullptr, kAbandoned); }
  void abandon() noexcept override {
    if (operation->withdraw()) ++world.settled;
  }
  World& world;
  std::unique_ptr<Operation> operation;
  std::mt19937_64 random;
};

// Opens operations and aborts some, until it is refused.
void submit_many(World& world, ThreadPool& pool, std::uint64_t stream_seed) {
  std::mt19937_64 random(stream_seed);
  HandleId last;
  for (;;) {
    auto operation = Operation::open(*world.queue, Operation::Progress{random() % 2 == 0});
    if (operation.ok()) {
      ++world.opened;
      last = (*operation)->id();
      pool.submit(std::make_unique<Work>(world, std::move(*operation), random()));
    } else if (operation.error().code == ErrorCode::kClosed) {
      return;
    } else {
      std::this_thread::yield();
    }
    if (random() % 4 == 0 && world.queue->abort(last)) ++world.settled;
  }
}

// Writes to a lane until it is discarded or the bytes are out, ignoring what did not fit.
void write_much(World& world, Lane& lane, std::atomic<bool>& stop, std::uint64_t stream_seed) {
  std::mt19937_64 random(stream_seed);
  std::vector<std::byte> bytes(5000);
  for (int i = 0; i < 2000 && !stop; ++i) lane.write(std::span(bytes).first(random() % bytes.size()));
  lane.finish();
  static_cast<void>(world);
}

void run_world(std::uint64_t world_seed) {
  std::mt19937_64 random(world_seed);
  const std::int64_t baseline = Payload::live();
  World world;
  Queue& queue = *world.queue;
  queue.attach_bell(&world.bell);
  auto execution = queue.reserve({.channels = 4, .bytes = 20'000}).value();
  ++world.opened;
  auto lane = Lane::open(execution, {.channel = 0, .number = 0, .high_water_mark = 20'000, .on_room = {}}).value();
  std::atomic<bool> stop{false};

  ThreadPool pool(3);
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&, stream_seed = random()] { submit_many(world, pool, stream_seed); });
  }
  threads.emplace_back([&, stream_seed = random()] {
    write_much(world, *lane, stop, stream_seed);
    execution->post(3, {.kind = RecordKind::kTerminal});
    execution.reset();
  });

  const int close_after = static_cast<int>(random() % 2000);
  const bool forced = random() % 3 == 0;
  const auto deadline = patience();
  int seen = 0;
  bool closing = false;
  while (!queue.is_drained() && Clock::now() < deadline) {
    if (!world.bell.wait_past(seen, deadline)) break;
    seen = world.bell.rings();
    drain(queue, [&](const Record& record) {
      ++world.drained_records;
      if (record.kind == RecordKind::kReadable) lane->read_available(1 << 20);
      if (record.kind == RecordKind::kProgress) queue.take_progress(record.handle());
      if (record.kind == RecordKind::kCompletion || record.kind == RecordKind::kTerminal) {
        if (auto claim = queue.claim(record.handle())) {
          ++world.settled;
          claim->take_payload();
        }
      }
      if (!closing && world.drained_records > close_after) {  // from inside a dispatch
        closing = true;
        stop = true;
        queue.begin_close();
        queue.settle();
        lane->discard();
        if (forced) queue.handles().claim_all([&](Claim) { ++world.settled; });
        pool.close();
      }
    });
  }
  INFO("seed ", world_seed, ": ", describe(queue));
  CHECK(queue.is_drained());
  stop = true;
  queue.finish_close();
  for (auto& thread : threads) thread.join();
  pool.close();
  CHECK(pool.join_until(patience()));
  queue.detach_bell();
  lane.reset();

  const auto counters = queue.handles().counters();
  CHECK(counters.live == 0);
  CHECK(counters.claimed == static_cast<std::uint64_t>(world.opened));
  CHECK(counters.finalized == counters.claimed);
  CHECK(world.settled == world.opened);
  CHECK(queue.outstanding() == 0);
  CHECK(queue.stats().depth == 0);
  CHECK(queue.stats().bytes == 0);
  CHECK(queue.stats().high_water <= 64);
  CHECK(queue.stats().events == static_cast<std::uint64_t>(world.drained_records));
  CHECK(world.ends.destroyed == world.payloads);
  CHECK(Payload::live() == baseline);
}

}  // namespace

TEST_CASE("P7: many producers, aborts, failures and a close at a random point, on a queue that is always full") {
  const std::uint64_t first = seed("stress");
  for (std::uint64_t i = 0; i < 40; ++i) run_world(first + i);
}

}  // namespace sluicebox::event_queue::test
