#include "event_queue/queue.h"

#include <ctime>
#include <thread>
#include <utility>
#include <vector>

#include "base/thread_pool.h"
#include "support.h"

namespace sluicebox::event_queue::test {
namespace {

constexpr Record kEvent{.kind = RecordKind::kControl};

// Posts the numbers 0 to count - 1 in order, over the channels of its sources, which it waits for to come free.
void post_numbers(Queue& queue, std::uint8_t producer, std::uint64_t count, std::atomic<bool>& gave_up) {
  std::vector<std::shared_ptr<Source>> sources;
  for (int i = 0; i < 4; ++i) sources.push_back(queue.reserve({.channels = 64}).value());
  for (std::uint64_t number = 0; number < count; ++number) {
    Source& source = *sources[number / 64 % sources.size()];
    const Record record{.kind = RecordKind::kControl, .flags = producer, .value = number};
    const auto channel = static_cast<std::uint32_t>(number % 64);
    Posted posted = source.post(channel, record);
    while (posted == Posted::kCoalesced && !gave_up) {
      std::this_thread::yield();
      posted = source.post(channel, record);
    }
    if (posted != Posted::kQueued) return;
  }
}

// Drains by the bell until `total` records came. False when the bell stayed silent for too long.
template <typename Dispatch>
bool drain_by_bell(Queue& queue, CountingBell& bell, std::uint64_t total, Dispatch dispatch) {
  std::uint64_t got = 0;
  int seen = 0;
  while (got < total) {
    if (!bell.wait_past(seen)) return false;
    seen = bell.rings();
    got += drain(queue, dispatch);
  }
  return true;
}

std::int64_t cpu_nanoseconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

}  // namespace

TEST_CASE("Q15: a source refused for want of a handle is rung for when one comes back") {
  auto queue = make_queue(HandleTable::kMaxSlots + 8);
  std::vector<std::shared_ptr<Source>> sources;
  for (std::uint32_t i = 0; i < HandleTable::kMaxSlots; ++i) sources.push_back(queue->reserve({.channels = 1}).value());
  CountingBell bell;
  queue->attach_bell(&bell);
  const auto refused = queue->reserve({.channels = 1});
  REQUIRE_FALSE(refused.ok());
  CHECK(refused.error().code == ErrorCode::kQueueFull);
  CHECK(bell.rings() == 0);
  CHECK(queue->claim(sources.back()->id()).has_value());
  sources.pop_back();
  CHECK(bell.rings() == 1);
  CHECK(queue->reserve({.channels = 1}).ok());
  queue->detach_bell();
}

TEST_CASE("Q1: with the reader away, depth and highWater never exceed the capacity, whatever is posted") {
  constexpr std::uint32_t kCapacity = 64;
  auto queue = make_queue(kCapacity);
  std::atomic<int> admitted{0};
  std::atomic<int> refused{0};
  std::atomic<bool> exceeded{false};
  std::vector<std::thread> producers;
  for (int i = 0; i < 16; ++i) {
    producers.emplace_back([&] {
      std::vector<std::shared_ptr<Source>> sources;
      for (int n = 0; n < 50; ++n) {
        auto source = queue->reserve({.channels = 2});
        if (source.ok()) {
          ++admitted;
          sources.push_back(*source);
        } else {
          CHECK(source.error().code == ErrorCode::kQueueFull);
          ++refused;
        }
        for (const auto& each : sources) {
          for (std::uint32_t k = 0; k < 10; ++k) each->post(k % 2, kEvent);
        }
        const Stats stats = queue->stats();
        if (stats.depth > kCapacity || stats.high_water > kCapacity || stats.slots > kCapacity) exceeded = true;
      }
    });
  }
  for (auto& thread : producers) thread.join();
  CHECK_FALSE(exceeded);
  // The sources are gone, their records are not: all 64 slots are held.
  CHECK(admitted == kCapacity / 2);
  CHECK(refused == 16 * 50 - kCapacity / 2);
  CHECK(queue->stats().depth == kCapacity);
  CHECK(queue->stats().high_water == kCapacity);
  CHECK(drain(*queue) == kCapacity);
  CHECK(queue->outstanding() == 0);
}

TEST_CASE("Q15: who was refused for want of room hears the bell when a slot is given back, and only then") {
  auto queue = make_queue(8);
  CountingBell bell;
  queue->attach_bell(&bell);
  auto holder = queue->reserve({.channels = 8}).value();
  queue->claim(holder->id());
  CHECK(queue->reserve({.channels = 1}).error().code == ErrorCode::kQueueFull);
  CHECK(bell.rings() == 0);
  holder.reset();
  CHECK(bell.rings() == 1);
  CHECK(drain(*queue) == 0);
  CHECK(queue->reserve({.channels = 1}).ok());  // given back at once: nobody was refused
  CHECK(bell.rings() == 1);
}

TEST_CASE("Q3: a million numbered events of four producers arrive once each, without gap or repeat") {
  constexpr std::uint64_t kEach = 250'000;
  auto queue = make_queue(1024);
  CountingBell bell;
  queue->attach_bell(&bell);
  std::atomic<bool> gave_up{false};
  std::vector<std::thread> producers;
  for (std::uint8_t i = 0; i < 4; ++i) {
    producers.emplace_back([&, i] { post_numbers(*queue, i, kEach, gave_up); });
  }
  std::uint64_t next[4] = {};
  std::uint64_t wrong = 0;
  const bool complete = drain_by_bell(*queue, bell, 4 * kEach, [&](const Record& record) {
    if (record.value != next[record.flags]++) ++wrong;
  });
  gave_up = true;
  for (auto& thread : producers) thread.join();
  INFO(describe(*queue));
  CHECK(complete);
  CHECK(wrong == 0);
  for (const std::uint64_t count : next) CHECK(count == kEach);
  CHECK(drain(*queue) == 0);
  CHECK(queue->stats().events == 4 * kEach);
  CHECK(queue->stats().dropped == 0);
  CHECK(queue->stats().discarded == 0);
  CHECK(queue->outstanding() == 0);
}

TEST_CASE("Q5: between take and the end of dispatch every call returns, and producers go on") {
  auto queue = make_queue(8);
  CountingBell bell;
  queue->attach_bell(&bell);
  auto source = queue->reserve({.channels = 2}).value();
  source->post(0, kEvent);
  Record batch[8];
  REQUIRE(queue->take(batch) == 1);
  // As a listener would, while a producer posts and the drain holds its batch.
  std::thread producer([&] { CHECK(source->post(1, kEvent) == Posted::kQueued); });
  producer.join();
  CHECK(queue->stats().depth == 1);
  CHECK(queue->reserve({.channels = 1}).ok());
  CHECK(queue->claim(batch[0].handle()).has_value());
  CHECK(queue->begin_close());
  queue->settle();
  queue->detach_bell();
  CHECK(bell.rings() == 1);
}

TEST_CASE("Q6: ten thousand posts before the loop turns ring once, and none rings during a pass") {
  auto queue = make_queue(10'000);
  CountingBell bell;
  queue->attach_bell(&bell);
  std::vector<std::shared_ptr<Source>> sources;
  for (int i = 0; i < 200; ++i) sources.push_back(queue->reserve({.channels = 50}).value());
  const auto post_all = [&] {
    std::vector<std::thread> producers;
    for (std::size_t part = 0; part < 4; ++part) {
      producers.emplace_back([&, part] {
        for (std::size_t i = part; i < sources.size(); i += 4) {
          for (std::uint32_t channel = 0; channel < 50; ++channel) sources[i]->post(channel, kEvent);
        }
      });
    }
    for (auto& thread : producers) thread.join();
  };
  post_all();
  CHECK(bell.rings() == 1);
  std::vector<Record> batch(10'000);
  REQUIRE(queue->take(batch) == 10'000);
  post_all();  // the drain is dispatching, or has an immediate pending
  CHECK(bell.rings() == 1);
  CHECK(queue->take(batch) == 10'000);
  CHECK(queue->take(batch) == 0);
  CHECK(queue->stats().wakeups == 1);
  sources[0]->post(0, kEvent);
  CHECK(bell.rings() == 2);
}

TEST_CASE("Q7: an event posted just after the last batch was taken rings the bell again") {
  auto queue = make_queue(8);
  CountingBell bell;
  queue->attach_bell(&bell);
  auto source = queue->reserve({.channels = 1}).value();

  SUBCASE("after the take that found nothing") {
    Record batch[4];
    for (int round = 1; round <= 3; ++round) {
      CHECK(source->post(0, kEvent) == Posted::kQueued);
      CHECK(bell.rings() == round);
      CHECK(queue->take(batch) == 1);
      CHECK(queue->take(batch) == 0);
    }
  }

  SUBCASE("however post and take interleave: each event is posted when the one before it was taken") {
    // Neither side sleeps between events: the post meets the drain's empty take at every point of it.
    struct SpinBell final : Bell {
      void ring() noexcept override { ++rings; }
      std::atomic<int> rings{0};
    } spin_bell;
    constexpr std::uint64_t kRounds = 30'000;
    queue->attach_bell(&spin_bell);
    std::atomic<bool> failed{false};
    std::thread producer([&] {
      for (std::uint64_t n = 0; n < kRounds && !failed; ++n) {
        for (int tries = 0; source->post(0, kEvent) != Posted::kQueued && !failed; ++tries) {
          if (tries > 1000) std::this_thread::yield();
        }
      }
    });
    std::uint64_t arrived = 0;
    for (int seen = 0; arrived < kRounds && !failed; ++seen) {
      for (int tries = 0; spin_bell.rings == seen && tries < 1000; ++tries) {
      }
      if (!eventually([&] { return spin_bell.rings > seen; })) failed = true;
      arrived += drain(*queue, [&](const Record& record) { spin((record.slot + arrived) % 64); });
    }
    producer.join();
    queue->detach_bell();
    INFO(describe(*queue));
    CHECK_FALSE(failed);
    CHECK(arrived == kRounds);
  }

  SUBCASE("and one posted between the empty look and going idle is not left to the next") {
    Source* late = nullptr;
    const auto post_late = [&](Queue::Seam seam) {
      if (seam == Queue::Seam::kBeforeIdle && late != nullptr) std::exchange(late, nullptr)->post(0, kEvent);
    };
    auto raced = Queue::create({.limits = {.max_events = 8}, .interleave = post_late}).value();
    raced->attach_bell(&bell);
    auto racer = raced->reserve({.channels = 1}).value();
    racer->post(0, kEvent);
    Record batch[4];
    CHECK(raced->take(batch) == 1);
    late = racer.get();
    // Taken at once, or rung for: either will do, silence will not.
    const bool taken = raced->take(batch) == 1;
    CHECK((taken || bell.rings() == 2));
    raced->detach_bell();
  }

  SUBCASE("with a bell that was attached late") {
    queue->detach_bell();
    CHECK(source->post(0, kEvent) == Posted::kQueued);
    CHECK(bell.rings() == 0);
    queue->attach_bell(&bell);
    CHECK(bell.rings() == 1);
  }
}

TEST_CASE("Q11: events of one operation keep their order, whichever of its threads posts them") {
  auto queue = make_queue();
  ThreadPool pool(4);
  constexpr int kOperations = 400;
  struct Step final : Task {
    Step(ThreadPool& the_pool, std::unique_ptr<Operation> the_operation, int the_step)
        : pool(the_pool), operation(std::move(the_operation)), step(the_step) {}
    void run() override {
      if (step == 5) return operation->complete(nullptr);
      operation->report(progress(static_cast<std::uint64_t>(step)));
      pool.submit(std::make_unique<Step>(pool, std::move(operation), step + 1));
    }
    void failed() noexcept override {}
    void abandon() noexcept override {}
    ThreadPool& pool;
    std::unique_ptr<Operation> operation;
    int step;
  };
  for (int i = 0; i < kOperations; ++i) {
    auto operation = Operation::open(*queue, Operation::Progress::kYes).value();
    pool.submit(std::make_unique<Step>(pool, std::move(operation), 0));
  }
  int completed = 0;
  int misplaced = 0;
  const bool all = eventually([&] {
    drain(*queue, [&](const Record& record) {
      if (record.kind == RecordKind::kProgress) {
        // A progress record behind its completion would find the handle settled.
        if (!queue->take_progress(record.handle()).has_value()) ++misplaced;
      } else {
        ++completed;
        if (!queue->claim(record.handle())) ++misplaced;
      }
    });
    return completed == kOperations;
  });
  pool.close();
  REQUIRE(pool.join_until(patience()));
  INFO(describe(*queue));
  CHECK(all);
  CHECK(misplaced == 0);
  CHECK(drain(*queue) == 0);
}

TEST_CASE("Q14: a hundred producers on one worker, capacity 8 and no drain: the worker finishes, the CPU rests") {
  auto queue = make_queue(8);
  std::vector<std::shared_ptr<Source>> sources;
  for (int i = 0; i < 8; ++i) sources.push_back(queue->reserve({.channels = 1}).value());
  struct Post final : Task {
    explicit Post(Source& the_source) : source(the_source) {}
    void run() override {
      for (int i = 0; i < 1000; ++i) source.post(0, kEvent);
    }
    void failed() noexcept override {}
    void abandon() noexcept override {}
    Source& source;
  };
  ThreadPool pool(1);
  for (std::size_t i = 0; i < 100; ++i) pool.submit(std::make_unique<Post>(*sources[i % 8]));
  struct Last final : Task {
    explicit Last(std::atomic<bool>& the_flag) : flag(the_flag) {}
    void run() override { flag = true; }
    void failed() noexcept override {}
    void abandon() noexcept override {}
    std::atomic<bool>& flag;
  };
  std::atomic<bool> other_work{false};
  pool.submit(std::make_unique<Last>(other_work));
  CHECK(eventually([&] { return other_work.load(); }));
  const std::int64_t before = cpu_nanoseconds();
  CHECK_FALSE(queue->wait_for(CloseState::kDrained, Clock::now() + std::chrono::milliseconds(100)));
  CHECK(cpu_nanoseconds() - before < 50'000'000);
  CHECK(queue->stats().depth == 8);
  CHECK(queue->stats().events == 8);
}

TEST_CASE("Q21: queues share nothing: a full, stalled or closed one leaves another as it was") {
  auto stalled = make_queue(8);
  auto other = make_queue(8);
  auto hog = stalled->reserve({.channels = 8}).value();
  for (std::uint32_t channel = 0; channel < 8; ++channel) hog->post(channel, kEvent);
  CHECK(stalled->reserve({.channels = 1}).error().code == ErrorCode::kQueueFull);

  const auto works = [&] {
    auto operation = Operation::open(*other, Operation::Progress::kNo).value();
    const HandleId id = operation->id();
    operation->complete(nullptr);
    Record batch[8];
    CHECK(other->take(batch) == 1);
    CHECK(batch[0].handle() == id);
    CHECK(other->claim(id).has_value());
    CHECK(other->take(batch) == 0);
  };
  works();
  stalled->finish_close();
  works();
  CHECK(other->handles().counters().live == 0);
}

TEST_CASE("a reservation that can never be met is an invalid argument, whatever is free") {
  auto queue = make_queue(8, 1000);
  CHECK(queue->reserve({.channels = 0}).error().code == ErrorCode::kInvalidArgument);
  CHECK(queue->reserve({.channels = 9}).error().code == ErrorCode::kInvalidArgument);
  CHECK(queue->reserve({.channels = 1, .bytes = 1001}).error().code == ErrorCode::kInvalidArgument);
  CHECK(make_queue(1000)->reserve({.channels = 65}).error().code == ErrorCode::kInvalidArgument);
  CHECK(Queue::create({.limits = {.max_events = 0}}).error().code == ErrorCode::kInvalidArgument);
  CHECK(queue->outstanding() == 0);
}

TEST_CASE("Q2: reserved bytes never exceed the queue's, and come back with their source") {
  auto queue = make_queue(8, 1000);
  auto first = queue->reserve({.channels = 1, .bytes = 600}).value();
  CHECK(queue->reserve({.channels = 1, .bytes = 401}).error().code == ErrorCode::kQueueFull);
  CHECK(queue->stats().bytes_reserved == 600);
  auto second = queue->reserve({.channels = 1, .bytes = 400}).value();
  CHECK_FALSE(second->assign_bytes(401));
  CHECK(second->assign_bytes(300));
  CHECK_FALSE(second->assign_bytes(101));
  CHECK(second->assign_bytes(100));
  first.reset();
  CHECK(queue->reserve({.channels = 1, .bytes = 600}).ok());
}

}  // namespace sluicebox::event_queue::test
