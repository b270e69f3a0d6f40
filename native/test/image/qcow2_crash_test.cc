#include <functional>
#include <random>

#include "test/image/qcow2_fixture.h"

namespace sluicebox::image::qcow2 {
namespace {

// After a crash at any point of `what`.
void survive(const std::vector<std::byte>& start, const char* what, const std::function<void(Block&)>& act) {
  CAPTURE(what);
  const auto open = [](File& file, bool writable) { return open_qcow2(file, {.writable = writable}); };
  testing::survive(start, open, act);
}

}  // namespace

TEST_CASE("I37: killed at any write or sync, with any of the unsynced sectors on disk, an image is sound") {
  for (const unsigned bits : {1u, 16u, 64u}) {
    CAPTURE(bits);
    PlanOptions options = disk(512 * 700, 512);
    options.refcount_bits = bits;
    const auto empty = planned(options);
    survive(empty, "first writes", [](Block& block) {
      must(block.write(0, pattern(512 * 3, 1)));
      must(block.flush());
      must(block.write(512 * 100, pattern(512 * 70, 2)));
    });
    MemoryFile file(empty);
    {
      auto block = open_writable(file);
      must(block->write(0, pattern(512 * 80, 3)));
      must(block->flush());
    }
    const auto filled = file.bytes();
    survive(filled, "zeros over data, then data where that was", [](Block& block) {
      must(block.write_zeros(512 * 10, 512 * 20));
      must(block.flush());
      must(block.write(512 * 200, pattern(512 * 30, 4)));
      must(block.flush());
      must(block.write_zeros(512 * 300, 512 * 5));
    });
  }
}

TEST_CASE("I37: so it is where clusters are written in parts, their own, a snapshot's and compressed ones") {
  constexpr std::size_t kUnit = 512;
  PlanOptions options = disk(16384 * 5, 16384);
  options.extended_l2 = true;
  const auto empty = planned(options);
  survive(empty, "first writes", [](Block& block) {
    must(block.write(kUnit * 3, pattern(kUnit * 5, 1)));
    must(block.flush());
    must(block.write(kUnit * 20, pattern(kUnit * 30, 2)));
    must(block.write_zeros(kUnit * 70, kUnit * 4));
  });
  MemoryFile file(empty);
  {
    auto block = open_writable(file);
    must(block->write(kUnit * 10, pattern(kUnit * 60, 3)));
    std::vector<std::byte> text(16384, std::byte{'a'});
    text[77] = std::byte{'b'};
    must(block->write_packed(16384 * 3, *must(block->make_packer())->pack(text)));
    NoProgress silent;
    must(block->create_snapshot("one", silent, CancelToken()));
    must(block->write(kUnit * 60, pattern(kUnit * 3, 4)));
    must(block->flush());
  }
  // No unit is written twice: what lies between two flushes would be neither before nor after.
  survive(file.bytes(), "parts of clusters", [](Block& block) {
    must(block.write(kUnit * 12, pattern(kUnit * 2, 5)));  // a snapshot's
    must(block.write_zeros(kUnit * 61, kUnit));
    must(block.write(kUnit * 100, pattern(kUnit * 2, 6)));  // compressed
    must(block.flush());
    must(block.write_zeros(kUnit * 14, kUnit));
    must(block.write(kUnit * 62, pattern(kUnit, 7)));
    must(block.write_zeros(kUnit * 40, kUnit * 20));
  });
}

TEST_CASE("I37: so it is while the refcount table moves to make room") {
  PlanOptions options = disk(512 * 5000, 512);
  options.refcount_bits = 64;
  MemoryFile file(planned(options));
  {
    auto block = open_writable(file);
    must(block->write(0, pattern(512 * 3800, 1)));
    must(block->flush());
  }
  const std::uint64_t table = load_be64(file.bytes().data() + 48);
  const auto grow = [](Block& block) { must(block.write(512 * 4000, pattern(512 * 600, 2))); };
  MemoryFile grown(file.bytes());
  {
    auto block = open_writable(grown);
    grow(*block);
    must(block->flush());
  }
  REQUIRE(load_be64(grown.bytes().data() + 48) != table);
  CHECK(check(*open_readable(grown)).leaks == 0);
  const Scratch scratch;
  must_run("qemu-img check -q " + scratch.put("a", grown.bytes()));
  // Each crash is replayed in full: a few of them, spread over the journal, and each around the switch.
  MemoryFile journaled(file.bytes());
  journaled.start_journal();
  {
    auto block = open_writable(journaled);
    grow(*block);
    must(block->flush());
  }
  const std::size_t all = journaled.journal().size();
  for (std::size_t events = 0; events <= all; events += (all - events > 40 ? all / 20 + 1 : 1)) {
    for (const std::uint64_t seed : {0u, 1u, 2u}) {
      MemoryFile crashed(journaled.after_crash(events, seed));
      REQUIRE(check(*open_readable(crashed)).corruptions == 0);
    }
  }
}

TEST_CASE("I37: killed while the backing changes, the header names the old or the new one, whole") {
  for (const std::uint64_t cluster : {512u, 1024u, 4096u, 65536u}) {
    CAPTURE(cluster);
    const std::size_t longest = cluster == 512 ? 100 : cluster == 1024 ? 330 : 1023;
    const std::vector<std::optional<BackingReference>> references = {
        std::nullopt, BackingReference{"a", "raw"}, BackingReference{std::string(longest, 'b'), "qcow2"},
        BackingReference{std::string(longest / 2, 'c'), std::nullopt}};
    for (const auto& from : references) {
      for (const auto& to : references) {
        PlanOptions options = disk(1 << 16, cluster);
        if (from) options.backing_path = from->path;
        if (from) options.backing_format = from->format.value_or("");
        MemoryFile file(planned(options));
        file.start_journal();
        {
          auto block = open_writable(file);
          must(block->set_backing(to));
          CHECK(block->backing() == to);
        }
        const Scratch scratch;
        const std::string json = must_run("qemu-img info --output=json " + scratch.put("a", file.bytes()));
        CHECK((json.find("\"backing-filename\"") != std::string::npos) == to.has_value());
        if (to) CHECK(json.find("\"backing-filename\": \"" + to->path + "\"") != std::string::npos);
        for (std::size_t events = 0; events <= file.journal().size(); ++events) {
          for (std::uint64_t seed = 0; seed < 20; ++seed) {
            MemoryFile crashed(file.after_crash(events, seed));
            const auto now = open_readable(crashed)->backing();
            REQUIRE((now == from || now == to));
          }
        }
      }
    }
  }
}

TEST_CASE("I38: a write that fails midway is a typed error, and the image is sound and as before or after") {
  PlanOptions options = disk(512 * 400, 512);
  const auto start = planned(options);
  const auto data = pattern(512 * 60, 1);
  for (const bool syncs : {false, true}) {
    for (std::uint64_t nth = 1; nth < 40; ++nth) {
      MemoryFile file(start);
      auto block = open_writable(file);
      if (syncs) {
        file.fail_sync(nth);
      } else {
        file.fail_write(nth, nth % 2 == 0 ? ENOSPC : EIO);
      }
      Status outcome = block->write(512 * 30, data);
      if (outcome.ok()) outcome = block->flush();
      if (outcome.ok()) break;
      CHECK((outcome.error().code == ErrorCode::kIo || outcome.error().code == ErrorCode::kNoSpace));
      block.reset();
      file.heal();
      auto again = open_readable(file);
      REQUIRE(check(*again).corruptions == 0);
    }
  }
}

TEST_CASE("I38: after ENOSPC for data the writes before it can still be flushed") {
  MemoryFile file(planned(disk(512 * 400, 512)));
  auto block = open_writable(file);
  const auto data = pattern(512 * 10, 1);
  must(block->write(0, data));
  file.limit_size(file.bytes().size() + 700);
  const Status full = block->write(512 * 100, pattern(512 * 50, 2));
  REQUIRE_FALSE(full.ok());
  CHECK(full.error().code == ErrorCode::kNoSpace);
  file.limit_size(1 << 20);
  must(block->flush());
  auto again = open_readable(file);
  std::vector<std::byte> back(data.size());
  must(again->read(0, back));
  CHECK(back == data);
  CHECK(check(*again).corruptions == 0);
}

}  // namespace sluicebox::image::qcow2
