#include "event_queue/close.h"

#include <algorithm>
#include <barrier>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "event_queue/lane.h"
#include "support.h"

namespace sluicebox::event_queue::test {
namespace {

using enum CloseState;
using enum Operation::Progress;

}  // namespace

TEST_CASE("H24: the close machine only moves forward, and each move is made once") {
  CloseMachine machine;
  const auto attempt = [&](int step) {
    switch (step) {
      case 0:
        return machine.refuse();
      case 1:
        return machine.settle();
      case 2:
        return machine.drain();
      default:
        return machine.finish();
    }
  };
  const CloseState states[] = {kRefusing, kSettling, kDrained, kClosed};
  for (int step = 0; step < 4; ++step) {
    for (int other = 0; other < 3; ++other) {
      if (other == step) continue;
      const CloseState before = machine.state();
      CHECK_FALSE(attempt(other));  // skipped or repeated: nothing moves
      CHECK(machine.state() == before);
    }
    CHECK(attempt(step));
    CHECK(machine.state() == states[step]);
    CHECK_FALSE(attempt(step));
  }
  CHECK_FALSE(machine.accepts_posts());
  for (const CloseState state : states) CHECK(std::string(close_state_name(state)) != "unknown");
}

TEST_CASE("H24: of concurrent and repeated closes one begins it, and all share the end") {
  auto queue = make_queue();
  std::atomic<int> began{0};
  std::atomic<int> ended{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      if (queue->begin_close()) ++began;
      queue->settle();
      if (queue->wait_for(kDrained, patience())) ++ended;
      queue->finish_close();
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(began == 1);
  CHECK(ended == 8);
  CHECK(queue->close_state() == kClosed);
  CHECK_FALSE(queue->begin_close());
}

TEST_CASE("H21: close wakes all waiters, and is drained only when the last reserved slot was dispatched") {
  auto queue = make_queue(8);
  CountingBell bell;
  queue->attach_bell(&bell);
  auto operation = Operation::open(*queue, kYes).value();
  std::atomic<int> refused{0};
  std::atomic<int> drained{0};
  std::vector<std::thread> waiters;
  for (int i = 0; i < 3; ++i) {
    waiters.emplace_back([&] {
      if (queue->wait_for(kRefusing, patience())) ++refused;
      if (queue->wait_for(kDrained, patience())) ++drained;
    });
  }
  queue->begin_close();
  CHECK(eventually([&] { return refused == 3; }));
  queue->settle();
  CHECK(operation->cancel().cancelled());
  CHECK_FALSE(queue->is_drained());
  operation->report(progress(1));
  operation->complete(nullptr);
  CHECK(bell.rings() == 1);
  CHECK_FALSE(queue->is_drained());
  Record batch[8];
  CHECK(queue->take(batch) == 2);
  operation.reset();
  CHECK(queue->outstanding() == 0);
  CHECK_FALSE(queue->is_drained());  // the batch is being dispatched
  CHECK(drained == 0);
  CHECK(queue->take(batch) == 0);
  CHECK(queue->is_drained());
  for (auto& thread : waiters) thread.join();
  CHECK(drained == 3);
}

TEST_CASE("H21: when the last slot comes back after its record was dispatched, the bell tells the sleeping drain") {
  auto queue = make_queue(8);
  CountingBell bell;
  queue->attach_bell(&bell);
  auto operation = Operation::open(*queue, kNo).value();
  queue->settle();
  operation->complete(nullptr);
  CHECK(drain(*queue) == 1);
  CHECK_FALSE(queue->is_drained());
  CHECK(bell.rings() == 1);
  operation.reset();
  CHECK(bell.rings() == 2);
  CHECK(queue->is_drained());
  Record batch[1];
  CHECK(queue->take(batch) == 0);
}

TEST_CASE("H21: a queue with nothing in flight is drained at once") {
  auto queue = make_queue(8);
  queue->settle();
  CHECK(queue->is_drained());
}

TEST_CASE("H22: a submission that races close is refused, or found by the close: never forgotten") {
  constexpr int kRounds = 400;
  constexpr int kSubmitters = 2;
  constexpr int kAttempts = 4'000;
  std::shared_ptr<Queue> queue;
  std::mutex mutex;
  std::vector<std::shared_ptr<Source>> admitted;
  std::atomic<int> refusals{0};
  std::atomic<bool> at_it{false};
  std::barrier sync(kSubmitters + 1);
  std::vector<std::thread> submitters;
  for (int i = 0; i < kSubmitters; ++i) {
    submitters.emplace_back([&] {
      for (int round = 0; round < kRounds; ++round) {
        std::vector<std::shared_ptr<Source>> mine;
        sync.arrive_and_wait();
        for (int attempt = 0; attempt < kAttempts; ++attempt) {
          auto source = queue->reserve({.channels = 1});
          if (!source.ok()) {
            CHECK(source.error().code == ErrorCode::kClosed);
            ++refusals;
            break;
          }
          mine.push_back(*source);
          at_it = true;
          spin(100);                                     // leaves the lock to the close
          if (attempt > 300) std::this_thread::yield();  // and the processor, should that be short
        }
        {
          const std::lock_guard lock(mutex);
          admitted.insert(admitted.end(), mine.begin(), mine.end());
        }
        mine.clear();
        sync.arrive_and_wait();
        sync.arrive_and_wait();
      }
    });
  }
  std::size_t forgotten = 0;
  for (int round = 0; round < kRounds; ++round) {
    queue = make_queue(kSubmitters * kAttempts, 1);
    at_it = false;
    sync.arrive_and_wait();
    REQUIRE(eventually([&] { return at_it.exchange(false); }));
    spin(static_cast<std::uint64_t>(round));
    queue->begin_close();
    const std::uint32_t counted = queue->outstanding();
    const std::size_t found = queue->handles().claim_all([](Claim) {});
    sync.arrive_and_wait();
    if (found != admitted.size() || counted != admitted.size()) ++forgotten;
    admitted.clear();
    sync.arrive_and_wait();
  }
  for (auto& thread : submitters) thread.join();
  CHECK(forgotten == 0);
  CHECK(refusals > 0);  // the two did meet
}

TEST_CASE("Q19: a post to a closed queue hands the payload to its reclaim rule: neither dispatched nor leaked") {
  const std::int64_t baseline = Payload::live();
  Ends ends;
  auto queue = make_queue(8);
  auto before = Operation::open(*queue, kNo).value();
  auto after = Operation::open(*queue, kNo).value();
  auto source = queue->reserve({.channels = 1}).value();
  before->complete(std::make_unique<TestPayload>(ends));
  queue->finish_close();
  CHECK(ends.reclaimed == 1);
  after->complete(std::make_unique<TestPayload>(ends));
  CHECK(ends.reclaimed == 2);
  CHECK(ends.destroyed == 2);
  CHECK(source->post(0, {.kind = RecordKind::kControl}) == Posted::kClosed);
  CHECK(source->post(0, {.kind = RecordKind::kControl}) == Posted::kClosed);
  CHECK(drain(*queue) == 0);
  CHECK(queue->stats().discarded == 1);
  CHECK(queue->reserve({.channels = 1}).error().code == ErrorCode::kClosed);
  before.reset();
  after.reset();
  source.reset();
  CHECK(queue->outstanding() == 0);
  CHECK(queue->handles().counters().live == 0);
  CHECK(Payload::live() == baseline);
}

TEST_CASE("Q19: completions that race the end of the queue are reclaimed or dispatched, once each") {
  constexpr int kRounds = 500;
  const std::int64_t baseline = Payload::live();
  Ends ends;
  std::atomic<int> owned{0};
  std::shared_ptr<Queue> queue;
  std::barrier sync(3);
  std::vector<std::unique_ptr<Operation>> operations[2];
  std::vector<std::thread> workers;
  for (auto& mine : operations) {
    workers.emplace_back([&] {
      for (int round = 0; round < kRounds; ++round) {
        sync.arrive_and_wait();
        for (auto& operation : mine) operation->complete(std::make_unique<TestPayload>(ends));
        mine.clear();
        sync.arrive_and_wait();
      }
    });
  }
  for (int round = 0; round < kRounds; ++round) {
    queue = make_queue(16);
    for (auto& each : operations) {
      for (int i = 0; i < 8; ++i) each.push_back(Operation::open(*queue, kNo).value());
    }
    sync.arrive_and_wait();
    Record batch[16];
    for (int pass = 0; pass < round % 3; ++pass) {
      const std::size_t count = queue->take(batch);
      for (std::size_t i = 0; i < count; ++i) {
        auto claim = queue->claim(batch[i].handle());
        if (claim && claim->take_payload() != nullptr) ++owned;
      }
    }
    queue->finish_close();
    sync.arrive_and_wait();
    CHECK(queue->handles().counters().live == 0);
  }
  for (auto& thread : workers) thread.join();
  CHECK(owned + ends.reclaimed == kRounds * 16);
  CHECK(ends.destroyed == kRounds * 16);
  CHECK(Payload::live() == baseline);
}

TEST_CASE("Q25: whatever goes first, teardown frees everything once") {
  const std::int64_t baseline = Payload::live();
  int order[] = {0, 1, 2, 3, 4};
  do {
    Ends ends;
    auto bell = std::make_unique<CountingBell>();
    auto queue = make_queue(8);
    queue->attach_bell(bell.get());
    auto operation = Operation::open(*queue, kYes).value();
    auto source = queue->reserve({.channels = 2, .bytes = 1000}).value();
    auto lane = Lane::open(source, {.channel = 0, .number = 0, .high_water_mark = 1000, .on_room = {}}).value();
    const auto work = [&] {
      if (lane != nullptr) lane->write(std::vector<std::byte>(10));
      if (operation != nullptr) operation->report(progress(1));
      if (source != nullptr) source->post(1, {.kind = RecordKind::kControl});
    };
    for (const int step : order) {
      work();
      switch (step) {
        case 0:
          queue->detach_bell();
          bell.reset();
          break;
        case 1:
          queue->finish_close();
          break;
        case 2:
          operation->complete(std::make_unique<TestPayload>(ends));
          operation.reset();
          break;
        case 3:
          source.reset();
          break;
        default:
          lane.reset();
      }
    }
    CHECK(ends.destroyed == 1);
    CHECK(ends.reclaimed == 1);
    CHECK(queue->stats().bytes == 0);
    CHECK(queue->outstanding() == 0);
  } while (std::next_permutation(std::begin(order), std::end(order)));
  CHECK(Payload::live() == baseline);
}

TEST_CASE("Q25: taking the bell away waits for a ring that is under way, and none follows") {
  struct SlowBell final : Bell {
    void ring() noexcept override {
      inside = true;
      eventually([&] { return detaching.load(); });
      for (int i = 0; i < 1000; ++i) std::this_thread::yield();
      left = true;
    }
    std::atomic<bool> inside{false};
    std::atomic<bool> detaching{false};
    std::atomic<bool> left{false};
  };
  auto queue = make_queue(8);
  SlowBell bell;
  queue->attach_bell(&bell);
  auto source = queue->reserve({.channels = 2}).value();
  std::thread producer([&] { source->post(0, {.kind = RecordKind::kControl}); });
  REQUIRE(eventually([&] { return bell.inside.load(); }));
  bell.detaching = true;
  queue->detach_bell();
  CHECK(bell.left);
  producer.join();
  CHECK(drain(*queue) == 1);
  bell.inside = false;
  source->post(0, {.kind = RecordKind::kControl});
  CHECK_FALSE(bell.inside);
}

}  // namespace sluicebox::event_queue::test
