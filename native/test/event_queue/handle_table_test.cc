#include "event_queue/handle_table.h"

#include <barrier>
#include <thread>
#include <vector>

#include "support.h"

namespace sluicebox::event_queue::test {
namespace {

constexpr int kThreads = 3;

}  // namespace

TEST_CASE("H1: of the threads that claim one id exactly one wins") {
  constexpr std::size_t kHandles = 60'000;
  HandleTable table;
  // By time, not by rounds: on a busy machine most rounds run one thread after the other.
  const auto enough = Clock::now() + std::chrono::milliseconds(1500);
  for (std::uint64_t round = 1; Clock::now() < enough; ++round) {
    std::vector<HandleId> ids;
    for (std::size_t i = 0; i < kHandles; ++i) ids.push_back(table.open().value());
    std::atomic<std::size_t> winners{0};
    std::atomic<int> ready{0};
    std::barrier sync(kThreads);
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; ++i) {
      threads.emplace_back([&] {
        std::vector<Claim> claims;
        claims.reserve(kHandles);
        ++ready;
        if (!eventually([&] { return ready == kThreads; })) FAIL_CHECK("not all threads came");
        // Losing is faster than winning, so that the threads meet at the front again and again.
        for (const HandleId id : ids) {
          if (auto claim = table.claim(id)) claims.push_back(std::move(*claim));
        }
        winners += claims.size();
        sync.arrive_and_wait();  // no claim ends before all were tried
      });
    }
    for (auto& thread : threads) thread.join();
    CHECK(winners == kHandles);
    CHECK(table.counters().claimed == round * kHandles);
    CHECK(table.counters().finalized == round * kHandles);
    CHECK(table.counters().live == 0);
  }
}

TEST_CASE("H1: a stale id never claims the slot's next tenant, nor touches its payload") {
  HandleTable table;
  Ends ends;
  const HandleId first = table.open().value();
  CHECK(table.claim(first).has_value());
  const HandleId second = table.open().value();
  REQUIRE(second.slot == first.slot);
  CHECK(second.generation != first.generation);
  CHECK_FALSE(table.claim(first).has_value());
  CHECK(table.in_flight(first) == nullptr);
  table.deposit(first, arm(std::make_unique<TestPayload>(ends)));
  CHECK(ends.reclaimed == 1);
  auto claim = table.claim(second);
  REQUIRE(claim.has_value());
  CHECK(claim->take_payload() == nullptr);
}

TEST_CASE("H1: a slot that was reused as often as a generation can count is retired") {
  constexpr std::uint32_t kLimit = 5;
  HandleTable table(kLimit);
  std::vector<HandleId> used;
  for (std::uint32_t i = 0; i < 300 * kLimit; ++i) {
    const HandleId id = table.open().value();
    CHECK(id.generation >= 1);
    CHECK(id.generation <= kLimit);
    for (const HandleId& earlier : used) {
      if (earlier == id) FAIL("slot ", id.slot, " generation ", id.generation, " was given out twice");
    }
    used.push_back(id);
    CHECK(table.claim(id).has_value());
  }
  int revived = 0;
  for (const HandleId& id : used) revived += table.claim(id).has_value() ? 1 : 0;
  CHECK(revived == 0);
}

TEST_CASE("H1: a table whose every slot is in use or retired refuses, and ids from elsewhere claim nothing") {
  HandleTable table(1);
  std::vector<HandleId> ids;
  for (std::uint32_t i = 0; i < HandleTable::kMaxSlots; ++i) ids.push_back(table.open().value());
  CHECK(table.open().error().code == ErrorCode::kQueueFull);
  CHECK(table.claim(ids[7]).has_value());
  CHECK(table.open().error().code == ErrorCode::kQueueFull);  // slot 7 has used its one generation
  CHECK_FALSE(table.claim({0, 0}).has_value());
  CHECK_FALSE(table.claim({HandleTable::kMaxSlots, 1}).has_value());
  CHECK_FALSE(table.claim({0xffffffff, 0xffffffff}).has_value());
  CHECK(table.claim_all([](Claim) {}) == HandleTable::kMaxSlots - 1);
  CHECK(table.counters().live == 0);
}

// A payload of every shape, walked to the baseline: those that hold memory in parts, and one that stands for a thing in
// the world.
namespace {

struct Nested final : Payload {
  struct Item {
    std::string name = std::string(100, 'n');
    std::vector<std::string> parts = {std::string(100, 'p'), std::string(100, 'q')};
    std::unique_ptr<std::string> note = std::make_unique<std::string>(100, 'o');
  };
  std::vector<Item> items{20};
};

// Stands for a box: reclaiming it makes a further payload of its own and lets it go.
struct Owning final : Payload {
  explicit Owning(std::atomic<int>& boxes) : boxes_(boxes) { ++boxes_; }
  void reclaim() noexcept override { --boxes_; }
  std::unique_ptr<Nested> details = std::make_unique<Nested>();
  std::atomic<int>& boxes_;
};

}  // namespace

TEST_CASE("H3: a payload whose claim was lost is reclaimed once by its type's rule, whenever it comes") {
  const std::int64_t baseline = Payload::live();
  Ends ends;
  {
    HandleTable table;

    SUBCASE("deposited before the claim, not taken by the winner") {
      const HandleId id = table.open().value();
      table.deposit(id, arm(std::make_unique<TestPayload>(ends)));
      CHECK(ends.reclaimed == 0);
      CHECK(table.claim(id).has_value());
    }
    SUBCASE("deposited while the winner holds the claim") {
      const HandleId id = table.open().value();
      auto claim = table.claim(id);
      table.deposit(id, arm(std::make_unique<TestPayload>(ends)));
      CHECK(claim->take_payload() == nullptr);
    }
    SUBCASE("deposited after the claim has ended") {
      const HandleId id = table.open().value();
      table.claim(id);
      table.deposit(id, arm(std::make_unique<TestPayload>(ends)));
    }
    SUBCASE("left in the table when it dies") {
      table.deposit(table.open().value(), arm(std::make_unique<TestPayload>(ends)));
    }
    SUBCASE("deposited for an id that never was") {
      table.deposit({12345, 1}, arm(std::make_unique<TestPayload>(ends)));
    }
  }
  CHECK(ends.reclaimed == 1);
  CHECK(ends.destroyed == 1);
  CHECK(Payload::live() == baseline);
}

TEST_CASE("H3: deposits that race a claim are taken or reclaimed, never both, never neither") {
  constexpr int kRounds = 5'000;
  const std::int64_t baseline = Payload::live();
  HandleTable table;
  Ends ends;
  HandleId id;
  int taken = 0;
  std::barrier sync(2);
  std::thread worker([&] {
    for (int round = 0; round < kRounds; ++round) {
      sync.arrive_and_wait();
      table.deposit(id, arm(std::make_unique<TestPayload>(ends)));
      sync.arrive_and_wait();
    }
  });
  for (int round = 0; round < kRounds; ++round) {
    id = table.open().value();
    sync.arrive_and_wait();
    spin(static_cast<std::uint64_t>(round % 64));
    if (table.claim(id)->take_payload() != nullptr) ++taken;
    sync.arrive_and_wait();
  }
  worker.join();
  CHECK(taken + ends.reclaimed == kRounds);
  CHECK(ends.destroyed == kRounds);
  CHECK(Payload::live() == baseline);
}

TEST_CASE("H4: reclaiming frees what a payload holds in parts, and undoes what it stands for") {
  const std::int64_t baseline = Payload::live();
  std::atomic<int> boxes{0};
  HandleTable table;
  // Leaks of the strings and lists inside are the leak sanitizer's to see.
  for (const bool taken : {false, true}) {
    const HandleId id = table.open().value();
    table.deposit(id, arm(std::make_unique<Nested>()));
    auto claim = table.claim(id);
    OwnedPayload payload = taken ? claim->take_payload() : nullptr;
    CHECK((payload != nullptr) == taken);
  }
  const HandleId lost = table.open().value();
  table.claim(lost);
  table.deposit(lost, arm(std::make_unique<Owning>(boxes)));
  CHECK(boxes == 0);
  const HandleId kept = table.open().value();
  table.deposit(kept, arm(std::make_unique<Owning>(boxes)));
  table.claim(kept)->take_payload();
  CHECK(boxes == 1);
  CHECK(Payload::live() == baseline);
}

TEST_CASE("H5: a payload handed to the winner is disarmed: its reclaim rule does not run as well") {
  Ends ends;
  {
    HandleTable table;
    const HandleId id = table.open().value();
    table.deposit(id, arm(std::make_unique<TestPayload>(ends, 42)));
    OwnedPayload payload;
    {
      auto claim = table.claim(id);
      payload = claim->take_payload();
      CHECK(claim->take_payload() == nullptr);
    }
    REQUIRE(payload != nullptr);
    CHECK(static_cast<TestPayload&>(*payload).number() == 42);
    CHECK(ends.destroyed == 0);
  }
  CHECK(ends.destroyed == 1);
  CHECK(ends.reclaimed == 0);
}

}  // namespace sluicebox::event_queue::test
