#include <functional>

#include "test/image/vmdk_fixture.h"

namespace sluicebox::image::vmdk {
namespace {

// After a crash at any point of `what`.
void survive_vmdk(const std::vector<std::byte>& start, const char* what, const std::function<void(Block&)>& act) {
  CAPTURE(what);
  const auto open = [](File& file, bool writable) { return open_vmdk(file, {.writable = writable}); };
  testing::survive(start, open, act);
}

}  // namespace

TEST_CASE("I37: killed at any write or sync, with any of the unsynced sectors on disk, a sparse vmdk is sound") {
  const auto empty = planned(disk(4096 * 1300, 4096));
  survive_vmdk(empty, "first writes", [](Block& block) {
    must(block.write(0, pattern(4096 * 3, 1)));
    must(block.flush());
    must(block.write(4096 * 500, pattern(4096 * 20, 2)));
  });
  MemoryFile file(empty);
  {
    auto block = open_writable(file);
    must(block->write(0, pattern(4096 * 8, 3)));
    must(block->flush());
  }
  survive_vmdk(file.bytes(), "data elsewhere, and zeros", [](Block& block) {
    must(block.write(4096 * 1200, pattern(4096 * 3, 4)));
    must(block.flush());
    must(block.write_zeros(4096 * 100, 4096 * 2));
  });
  survive_vmdk(file.bytes(), "emptied", [](Block& block) { must(block.make_empty()); });
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
