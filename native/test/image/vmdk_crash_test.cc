#include <functional>

#include "test/image/vmdk_fixture.h"

namespace sluicebox::image::vmdk {
namespace {

struct VmdkScenario {
  const char* name;
  std::function<void(Block&)> act;
};

std::vector<std::byte> guest_of(const std::vector<std::byte>& bytes) {
  MemoryFile file(bytes);
  return read_all(*open_readable(file));
}

// After a crash behind each event, with none, all and three random subsets of the unsynced sectors on disk.
void survive_vmdk(const std::vector<std::byte>& start, const VmdkScenario& scenario) {
  MemoryFile file(start);
  file.start_journal();
  {
    auto block = open_writable(file);
    scenario.act(*block);
    must(block->flush());
  }
  const auto before = guest_of(start);
  const auto after = guest_of(file.bytes());
  const std::size_t unit = open_readable(file)->allocation_unit();
  for (std::size_t events = 0; events <= file.journal().size(); ++events) {
    for (const std::uint64_t seed : crash_seeds(events)) {
      CAPTURE(scenario.name);
      CAPTURE(events);
      CAPTURE(seed);
      MemoryFile disk(file.after_crash(events, seed));
      auto block = open_readable(disk);
      const CheckReport report = check(*block);
      REQUIRE_MESSAGE(report.corruptions == 0, report.problems.front().kind, " ", report.problems.front().message);
      const auto now = read_all(*block);
      for (std::size_t at = 0; at < now.size(); at += unit) {
        const std::size_t length = std::min(unit, now.size() - at);
        const bool old_bytes = std::memcmp(now.data() + at, before.data() + at, length) == 0;
        const bool new_bytes = std::memcmp(now.data() + at, after.data() + at, length) == 0;
        REQUIRE_MESSAGE((old_bytes || new_bytes), "the unit at ", at, " reads as neither before nor after");
      }
      // It can be written again, and what leaked at its end goes.
      auto writer = open_writable(disk);
      must(writer->write(0, pattern(unit, 99)));
      must(writer->flush());
      REQUIRE(check(*writer).corruptions == 0);
      REQUIRE(check(*writer, Repair::kAll).corruptions == 0);
    }
  }
}

}  // namespace

TEST_CASE("I37: killed at any write or sync, with any of the unsynced sectors on disk, a sparse vmdk is sound") {
  const auto empty = planned(disk(4096 * 1300, 4096));
  survive_vmdk(empty, {"first writes", [](Block& block) {
                         must(block.write(0, pattern(4096 * 3, 1)));
                         must(block.flush());
                         must(block.write(4096 * 500, pattern(4096 * 20, 2)));
                       }});
  MemoryFile file(empty);
  {
    auto block = open_writable(file);
    must(block->write(0, pattern(4096 * 8, 3)));
    must(block->flush());
  }
  survive_vmdk(file.bytes(), {"data elsewhere, and zeros", [](Block& block) {
                                must(block.write(4096 * 1200, pattern(4096 * 3, 4)));
                                must(block.flush());
                                must(block.write_zeros(4096 * 100, 4096 * 2));
                              }});
  survive_vmdk(file.bytes(), {"emptied", [](Block& block) { must(block.make_empty()); }});
}

TEST_CASE("I37: killed at any write or sync, a rebased vmdk has the old backing or the new one, whole") {
  PlanOptions options = disk(4096 * 8, 4096);
  options.parent_hint = "old.vmdk";
  options.parent_cid = 5;
  const auto start = planned(options);
  const BackingReference old{.path = "old.vmdk", .format = "vmdk", .content_id = "00000005"};
  for (const std::size_t length : {1u, 100u, 500u, 1023u}) {
    CAPTURE(length);
    const BackingReference wanted{.path = std::string(length, 'n'), .format = "vmdk", .content_id = "00000006"};
    MemoryFile file(start);
    file.start_journal();
    must(open_writable(file)->set_backing(wanted));
    CHECK(open_readable(file)->backing() == wanted);
    for (std::size_t events = 0; events <= file.journal().size(); ++events) {
      for (std::uint64_t seed = 0; seed < 8; ++seed) {
        CAPTURE(events);
        CAPTURE(seed);
        MemoryFile crashed(file.after_crash(events, seed));
        const auto backing = open_readable(crashed)->backing();
        REQUIRE((backing == old || backing == wanted));
        // And it can be changed again, from wherever its descriptor lies now.
        must(open_writable(crashed)->set_backing(std::nullopt));
        REQUIRE_FALSE(open_readable(crashed)->backing());
        REQUIRE(check(*open_readable(crashed)).corruptions == 0);
      }
    }
  }
}

TEST_CASE("I38: a full disk or a failing one at each write is a typed error, and the vmdk stays sound") {
  const auto start = planned(disk(4096 * 600, 4096));
  for (const int error : {ENOSPC, EIO}) {
    bool failed = true;
    for (std::uint64_t nth = 1; failed; ++nth) {
      CAPTURE(nth);
      MemoryFile file(start);
      file.fail_write(nth, error);
      auto block = open_writable(file);
      Status outcome = block->write(0, pattern(4096 * 2, 1));
      if (outcome.ok()) outcome = block->write(4096 * 550, pattern(4096, 2));
      if (outcome.ok()) outcome = block->flush();
      failed = !outcome.ok();
      if (failed) CHECK(outcome.error().code == (error == ENOSPC ? ErrorCode::kNoSpace : ErrorCode::kIo));
      file.heal();
      CHECK(check(*open_readable(file)).corruptions == 0);
    }
  }
}

}  // namespace sluicebox::image::vmdk
