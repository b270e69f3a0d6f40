#include "event_queue/operation.h"

#include <barrier>
#include <random>
#include <thread>
#include <vector>

#include "support.h"

namespace sluicebox::event_queue::test {
namespace {

using enum Operation::Progress;

// What JavaScript's side does with a batch: settles completions by their claim. Returns how many it settled.
int settle_batch(Queue& queue, std::vector<Claim>* kept = nullptr) {
  int settled = 0;
  drain(queue, [&](const Record& record) {
    if (record.kind != RecordKind::kCompletion) return;
    if (auto claim = queue.claim(record.handle())) {
      ++settled;
      claim->take_payload();
      if (kept != nullptr) kept->push_back(std::move(*claim));
    }
  });
  return settled;
}

}  // namespace

TEST_CASE("Q17: progress holds one queued event per operation, latest wins, and its count never goes back") {
  auto queue = make_queue();
  auto operation = Operation::open(*queue, kYes).value();
  for (std::uint64_t done = 1; done <= 10'000; ++done) operation->report(progress(done, "copy", 20'000));
  Record batch[8];
  CHECK(queue->stats().depth == 1);
  REQUIRE(queue->take(batch) == 1);
  CHECK(batch[0].kind == RecordKind::kProgress);
  auto seen = queue->take_progress(batch[0].handle());
  REQUIRE(seen.has_value());
  CHECK(seen->done == 10'000);
  CHECK(seen->total == 20'000);
  CHECK_FALSE(queue->take_progress(batch[0].handle()).has_value());

  operation->report(progress(3, "flush"));
  REQUIRE(queue->take(batch) == 1);
  seen = queue->take_progress(batch[0].handle());
  REQUIRE(seen.has_value());
  CHECK(std::string(seen->phase) == "flush");
  CHECK(seen->done == 10'000);
}

TEST_CASE("Q17: no progress is queued once the completion was posted, also from another thread of the operation") {
  constexpr std::uint64_t kRounds = 3'000;
  auto queue = make_queue();
  std::unique_ptr<Operation> operation;
  std::atomic<bool> reporting{false};
  std::barrier sync(2);
  std::thread helper([&] {
    for (std::uint64_t round = 0; round < kRounds; ++round) {
      sync.arrive_and_wait();
      for (std::uint64_t done = 1000; reporting; --done) operation->report(progress(done % 1000));
      sync.arrive_and_wait();
    }
  });
  int late = 0;
  int decreased = 0;
  bool completed = false;
  std::uint64_t last = 0;
  const auto dispatch = [&](const Record& record) {
    if (record.kind == RecordKind::kCompletion) {
      completed = true;
      return;
    }
    if (completed) ++late;
    if (const auto report = queue->take_progress(record.handle())) {
      if (report->done < last) ++decreased;
      last = report->done;
    }
  };
  for (std::uint64_t round = 0; round < kRounds; ++round) {
    operation = Operation::open(*queue, kYes).value();
    completed = false;
    last = 0;
    reporting = true;
    sync.arrive_and_wait();
    // Each report that is taken lets the next one be announced.
    for (std::uint64_t turn = 0; turn < round % 16; ++turn) drain(*queue, dispatch);
    spin(round % 100);
    operation->complete(nullptr);
    drain(*queue, dispatch);
    spin(100);
    reporting = false;
    sync.arrive_and_wait();
    operation->report(progress(2000));
    drain(*queue, dispatch);
    REQUIRE(completed);
    queue->claim(operation->id());
    operation.reset();
  }
  helper.join();
  CHECK(late == 0);
  CHECK(decreased == 0);
  CHECK(queue->outstanding() == 0);
}

TEST_CASE("Q17: progress of a settled operation is not delivered") {
  auto queue = make_queue();
  auto operation = Operation::open(*queue, kYes).value();
  operation->report(progress(1));
  CHECK(queue->abort(operation->id()).has_value());
  operation->report(progress(2));
  CHECK_FALSE(queue->take_progress(operation->id()).has_value());
}

TEST_CASE("H2: completion, abort, close and synchronous failure racing over one operation settle it once") {
  constexpr int kRaces = 500;
  const std::uint64_t first_seed = seed("H2");
  const std::int64_t baseline = Payload::live();
  Ends ends;
  int payloads = 0;
  std::shared_ptr<Queue> queue;
  std::unique_ptr<Operation> operation;
  HandleId id;
  bool fails_at_once = false;
  std::barrier sync(5);

  const auto race = [&](int who, auto act) {
    return std::thread([&, who, act] {
      for (int i = 0; i < kRaces; ++i) {
        sync.arrive_and_wait();
        std::mt19937_64 random(first_seed + static_cast<std::uint64_t>(i * 8 + who));
        spin(random() % 400);
        act(random);
        sync.arrive_and_wait();
      }
    });
  };
  // Winners hold their claims to the end of the race, as one does who settles a promise with it.
  std::vector<Claim> held[4];
  std::vector<std::thread> threads;
  threads.push_back(race(0, [&](std::mt19937_64&) {
    if (fails_at_once) {
      if (auto claim = operation->withdraw()) held[0].push_back(std::move(*claim));
    } else {
      operation->report(progress(1));
      operation->complete(std::make_unique<TestPayload>(ends));
    }
    operation.reset();
  }));
  threads.push_back(race(1, [&](std::mt19937_64&) {
    if (auto claim = queue->abort(id)) held[1].push_back(std::move(*claim));
  }));
  threads.push_back(race(2, [&](std::mt19937_64& random) {
    queue->begin_close();
    if (random() % 2 == 0) queue->settle();
    queue->handles().claim_all([&](Claim claim) { held[2].push_back(std::move(claim)); });
    if (random() % 2 == 0) queue->finish_close();
  }));
  threads.push_back(race(3, [&](std::mt19937_64&) { settle_batch(*queue, &held[3]); }));

  int wrong = 0;
  for (int i = 0; i < kRaces; ++i) {
    queue = make_queue(8);
    operation = Operation::open(*queue, kYes).value();
    id = operation->id();
    fails_at_once = i % 4 == 3;
    payloads += fails_at_once ? 0 : 1;
    sync.arrive_and_wait();
    sync.arrive_and_wait();
    settle_batch(*queue, &held[3]);
    std::size_t settled = 0;
    for (auto& claims : held) {
      settled += claims.size();
      claims.clear();
    }
    const auto counters = queue->handles().counters();
    if (settled > 1 || counters.claimed != 1 || counters.finalized != 1 || counters.live != 0) {
      ++wrong;
      MESSAGE("seed ", first_seed, " race ", i, ": settled ", settled, ", ", describe(*queue));
    }
    // Nobody settles only what finish_close() has taken away: there is no one left to hear.
    if (settled == 0 && queue->close_state() != CloseState::kClosed) ++wrong;
  }
  for (auto& thread : threads) thread.join();
  CHECK(wrong == 0);
  CHECK(ends.destroyed == payloads);
  CHECK(Payload::live() == baseline);
}

TEST_CASE(
    "H3: an aborted operation that completes later has its payload reclaimed, and its completion settles nothing") {
  Ends ends;
  auto queue = make_queue();
  auto operation = Operation::open(*queue, kNo).value();
  const HandleId id = operation->id();
  CHECK(queue->abort(id).has_value());
  CHECK(operation->cancel().cancelled());
  operation->complete(std::make_unique<TestPayload>(ends));
  CHECK(ends.reclaimed == 1);
  operation.reset();
  CHECK(settle_batch(*queue) == 0);
  CHECK(queue->outstanding() == 0);
}

TEST_CASE("H10: one terminal record settles an execution, when its end, a kill and a close race on a full queue") {
  constexpr int kRounds = 300;
  int wrong = 0;
  for (int round = 0; round < kRounds; ++round) {
    auto queue = make_queue(8);
    auto execution = queue->reserve({.channels = 4}).value();
    auto hog = queue->reserve({.channels = 4}).value();
    for (std::uint32_t channel = 0; channel < 4; ++channel) hog->post(channel, {.kind = RecordKind::kControl});
    std::atomic<int> terminals{0};
    const HandleId id = execution->id();
    const auto end = [&] {
      if (execution->post(3, {.kind = RecordKind::kTerminal}) == Posted::kQueued) ++terminals;
    };
    std::thread natural(end);
    std::thread killed(end);
    queue->begin_close();
    queue->settle();
    natural.join();
    killed.join();
    int settled = 0;
    drain(*queue, [&](const Record& record) {
      if (record.kind == RecordKind::kTerminal && queue->claim(record.handle())) ++settled;
    });
    if (settled != 1 || terminals != 1 || queue->claim(id)) ++wrong;
  }
  CHECK(wrong == 0);
}

TEST_CASE("H11: an operation that goes away without a last word is completed as abandoned") {
  auto queue = make_queue();
  HandleId id;
  {
    auto operation = Operation::open(*queue, kNo).value();
    id = operation->id();
  }
  Record batch[4];
  REQUIRE(queue->take(batch) == 1);
  CHECK(batch[0].kind == RecordKind::kCompletion);
  CHECK(batch[0].flags == kAbandoned);
  CHECK(batch[0].handle() == id);
  CHECK(queue->claim(id)->take_payload() == nullptr);
}

TEST_CASE("H29: a submission that fails at once releases its handle once and posts nothing") {
  auto queue = make_queue(8);
  for (int i = 0; i < 100; ++i) {
    auto opened = Operation::open(*queue, kYes);
    REQUIRE(opened.ok());  // else an earlier one has kept its slots
    auto operation = std::move(opened).value();
    CHECK(operation->withdraw().has_value());
    CHECK_FALSE(operation->withdraw().has_value());
    operation->report(progress(1));
    operation->complete(nullptr);
  }
  CHECK(drain(*queue) == 0);
  CHECK(queue->outstanding() == 0);
  CHECK(queue->handles().counters().live == 0);
  CHECK(queue->handles().counters().finalized == 100);
}

TEST_CASE("H33: an operation that committed before the abort came keeps its claim for its completion") {
  auto queue = make_queue();
  auto operation = Operation::open(*queue, kNo).value();
  REQUIRE(operation->cancel().try_commit());
  CHECK_FALSE(queue->abort(operation->id()).has_value());
  operation->complete(nullptr);
  CHECK(settle_batch(*queue) == 1);
  CHECK_FALSE(queue->abort(operation->id()).has_value());
}

TEST_CASE("H35: after ten thousand operations with random aborts no handle is live, and claimed equals finalized") {
  std::mt19937_64 random(seed("H35"));
  const std::int64_t baseline = Payload::live();
  auto queue = make_queue(64);
  Ends ends;
  std::vector<std::unique_ptr<Operation>> running;
  int opened = 0;
  while (opened < 10'000 || !running.empty()) {
    auto operation = opened < 10'000 ? Operation::open(*queue, random() % 2 == 0 ? kYes : kNo)
                                     : Result<std::unique_ptr<Operation>>(Error(ErrorCode::kClosed, ""));
    if (operation.ok()) {
      ++opened;
      running.push_back(std::move(*operation));
    } else if (running.empty()) {
      settle_batch(*queue);
      continue;
    }
    const std::size_t at = random() % running.size();
    switch (random() % 4) {
      case 0:
        queue->abort(running[at]->id());
        break;
      case 1:
        running[at]->report(progress(random()));
        break;
      case 2:
        settle_batch(*queue);
        break;
      default:
        running[at]->complete(std::make_unique<TestPayload>(ends));
        running.erase(running.begin() + static_cast<std::ptrdiff_t>(at));
    }
  }
  settle_batch(*queue);
  const auto counters = queue->handles().counters();
  CHECK(counters.live == 0);
  CHECK(counters.claimed == 10'000);
  CHECK(counters.finalized == 10'000);
  CHECK(queue->outstanding() == 0);
  CHECK(ends.destroyed == 10'000);
  CHECK(Payload::live() == baseline);
}

}  // namespace sluicebox::event_queue::test
