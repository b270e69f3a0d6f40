// Internal snapshots: created, applied and removed, with qemu-img as the judge, killed at any moment, and refused.
#include <map>
#include <random>

#include "test/image/qcow2_fixture.h"

namespace sluicebox::image::qcow2 {
namespace {

using Disk = std::vector<std::byte>;

struct Quiet {
  NoProgress progress;
  CancelToken cancel;
};

Status create_one(Block& block, const std::string& name) {
  Quiet quiet;
  return block.create_snapshot(name, quiet.progress, quiet.cancel);
}
Status apply_one(Block& block, const std::string& name) {
  Quiet quiet;
  return block.apply_snapshot(name, quiet.progress, quiet.cancel);
}
Status remove_one(Block& block, const std::string& name) {
  Quiet quiet;
  return block.remove_snapshot(name, quiet.progress, quiet.cancel);
}

std::vector<std::string> names_of(const Block& block) {
  std::vector<std::string> names;
  for (const InternalSnapshot& each : block.info().snapshots) names.push_back(each.name);
  return names;
}

Disk snapshot_bytes(const Block& block, const std::string& name) { return read_all(*must(block.open_snapshot(name))); }

std::vector<std::byte> with_two_snapshots(unsigned version) {
  PlanOptions options = disk(512 * 300, 512);
  options.version = version;
  MemoryFile file(planned(options));
  auto block = open_writable(file);
  must(block->write(0, pattern(512 * 40, 1)));
  must(create_one(*block, "one"));
  must(block->write(512 * 20, pattern(512 * 40, 2)));
  must(create_one(*block, "two"));
  must(block->write(512 * 30, pattern(512 * 3, 3)));
  must(block->write(512 * 200, pattern(512 * 9, 4)));
  must(block->flush());
  return file.bytes();
}

}  // namespace

TEST_CASE("I30: snapshots keep what the disk was, through any order of writes, makes, applies and removes") {
  const Scratch scratch;
  std::mt19937_64 random(20261122);
  for (const unsigned version : {2u, 3u}) {
    for (const std::uint64_t cluster : {512u, 4096u, 16384u}) {
      if (version == 2 && cluster == 16384) continue;
      CAPTURE(version);
      CAPTURE(cluster);
      // What is written whole: subclusters of the largest.
      const std::uint64_t unit = cluster == 16384 ? 512 : cluster;
      PlanOptions options = disk(unit * 90 + 512, cluster);
      options.version = version;
      options.extended_l2 = unit != cluster;
      MemoryFile file(planned(options));
      auto block = open_writable(file);
      std::map<std::string, Disk> kept;
      Disk now = read_all(*block);
      for (int step = 0; step < 60; ++step) {
        CAPTURE(step);
        const auto choice = random() % 8;
        const std::string name = "s" + std::to_string(random() % 5);
        if (choice < 3) {
          const std::uint64_t first = random() % 80;
          const auto data = pattern(unit * (1 + random() % 10), static_cast<std::uint64_t>(step));
          must(block->write(first * unit, data));
          std::copy(data.begin(), data.end(), now.begin() + static_cast<std::ptrdiff_t>(first * unit));
        } else if (choice == 3) {
          const std::uint64_t first = random() % 80;
          must(block->write_zeros(first * unit, unit * 5));
          std::fill_n(now.begin() + static_cast<std::ptrdiff_t>(first * unit), unit * 5, std::byte{0});
        } else if (choice < 6) {
          const Status made = create_one(*block, name);
          CHECK(made.ok() == !kept.contains(name));
          if (!made.ok()) CHECK(made.error().code == ErrorCode::kSnapshotExists);
          if (made.ok()) kept[name] = now;
        } else if (choice == 6) {
          const Status applied = apply_one(*block, name);
          CHECK(applied.ok() == kept.contains(name));
          if (!applied.ok()) CHECK(applied.error().code == ErrorCode::kSnapshotNotFound);
          if (applied.ok()) now = kept[name];
        } else {
          CHECK(remove_one(*block, name).ok() == (kept.erase(name) == 1));
        }
        must(block->flush());
        REQUIRE(read_all(*block) == now);
        for (const auto& [each, bytes] : kept) REQUIRE(snapshot_bytes(*block, each) == bytes);
        const CheckReport report = check(*block);
        REQUIRE_MESSAGE((report.corruptions == 0 && report.leaks == 0), report.problems.front().kind);
        if (step % 12 == 11) must_run("qemu-img check -q " + scratch.put("a", file.bytes()));
      }
      const std::string path = scratch.put("a", file.bytes());
      const std::string info = must_run("qemu-img info --output=json " + path);
      for (const auto& [each, bytes] : kept) {
        CHECK(info.find("\"name\": \"" + each + "\"") != std::string::npos);
        must_run("qemu-img convert -l " + each + " -O raw " + path + " " + scratch.path("raw"));
        CHECK(scratch.get("raw") == bytes);
      }
    }
  }
}

TEST_CASE("I30: snapshots that qemu-img made are applied and removed, and it does the same with ours") {
  const Scratch scratch;
  const std::string path = scratch.path("a");
  must_run("qemu-img create -q -f qcow2 -o cluster_size=4k " + path + " 4M");
  must_run("qemu-io -c 'write -P 1 0 1M' " + path);
  must_run("qemu-img snapshot -c theirs " + path);
  must_run("qemu-io -c 'write -P 2 512k 1M' " + path);
  MemoryFile file(scratch.get("a"));
  {
    auto block = open_writable(file);
    must(create_one(*block, "ours"));
    CHECK(names_of(*block) == std::vector<std::string>{"theirs", "ours"});
    CHECK(block->info().snapshots[1].id == "2");
    must(apply_one(*block, "theirs"));
    std::vector<std::byte> byte(4096);
    must(block->read(1 << 20, byte));
    CHECK(all_zero(byte));
  }
  scratch.put("a", file.bytes());
  must_run("qemu-img check -q " + path);
  must_run("qemu-io -c 'read -P 1 0 1M' -c 'read -P 0 1M 1M' " + path + " | grep -v failed");
  must_run("qemu-img snapshot -a ours " + path);
  must_run("qemu-img snapshot -d ours " + path);
  must_run("qemu-img check -q " + path);
  MemoryFile again(scratch.get("a"));
  auto block = open_writable(again);
  must(remove_one(*block, "1"));
  CHECK(names_of(*block).empty());
  const CheckReport report = check(*block);
  CHECK(report.corruptions == 0);
  CHECK(report.leaks == 0);
}

TEST_CASE(
    "I37: killed while a snapshot is made, applied or removed, the disk and all snapshots are as before or after") {
  struct Change {
    const char* name;
    Status (*act)(Block&, const std::string&);
    std::string snapshot;
  };
  const Change changes[] = {{"create", create_one, "three"},
                            {"apply", apply_one, "one"},
                            {"remove the first", remove_one, "one"},
                            {"remove the last", remove_one, "two"}};
  for (const unsigned version : {2u, 3u}) {
    for (const Change& change : changes) {
      CAPTURE(version);
      CAPTURE(change.name);
      MemoryFile file(with_two_snapshots(version));
      const Disk before = read_all(*open_readable(file));
      const auto names_before = names_of(*open_readable(file));
      std::map<std::string, Disk> kept;
      for (const std::string& each : names_before) kept[each] = snapshot_bytes(*open_readable(file), each);
      kept["three"] = before;
      file.start_journal();
      {
        auto block = open_writable(file);
        must(change.act(*block, change.snapshot));
      }
      const Disk after = read_all(*open_readable(file));
      const auto names_after = names_of(*open_readable(file));
      const std::size_t all = file.journal().size();
      REQUIRE(all > 5);
      for (std::size_t events = 0; events <= all; ++events) {
        for (const std::uint64_t seed : crash_seeds(events)) {
          CAPTURE(events);
          CAPTURE(seed);
          MemoryFile crashed(file.after_crash(events, seed));
          {
            auto block = open_readable(crashed);
            const Disk now = read_all(*block);
            REQUIRE((now == before || now == after));
            const auto names = names_of(*block);
            REQUIRE((names == names_before || names == names_after));
            for (const std::string& each : names) REQUIRE(snapshot_bytes(*block, each) == kept[each]);
            // Without a mark that says so (version 2), a flag may be missing, which costs a copy and no byte.
            if (!block->info().dirty) {
              for (const CheckProblem& problem : check(*block).problems) {
                const bool sound = problem.kind == "leaked-cluster" || (version == 2 && problem.kind == "copied-flag");
                REQUIRE_MESSAGE(sound, problem.kind, " ", problem.message);
              }
            }
          }
          // Whoever opens it for writing counts anew, and goes on.
          const Disk shown = read_all(*open_readable(crashed));
          auto writer = open_writable(crashed);
          must(writer->write(512 * 35, pattern(512, 99)));
          must(writer->flush());
          for (const std::string& each : names_of(*writer)) REQUIRE(snapshot_bytes(*writer, each) == kept[each]);
          std::vector<std::byte> rest(512 * 10);
          must(writer->read(0, rest));
          REQUIRE(std::equal(rest.begin(), rest.end(), shown.begin()));
          if (version == 3) REQUIRE(check(*writer).corruptions == 0);
        }
      }
    }
  }
}

TEST_CASE("I38: a snapshot for which no space or no count is left changes nothing that reads") {
  PlanOptions options = disk(512 * 100, 512);
  options.refcount_bits = 1;
  MemoryFile narrow(planned(options));
  auto block = open_writable(narrow);
  must(block->write(0, pattern(512, 1)));
  must(block->flush());
  const auto bytes = narrow.bytes();
  const Status refused = create_one(*block, "none");
  REQUIRE_FALSE(refused.ok());
  CHECK(refused.error().code == ErrorCode::kUnsupported);
  CHECK(narrow.bytes() == bytes);

  const auto start = with_two_snapshots(3);
  for (std::uint64_t nth = 1;; ++nth) {
    CAPTURE(nth);
    MemoryFile file(start);
    auto writer = open_writable(file);
    const Disk before = read_all(*writer);
    file.fail_write(nth, nth % 2 == 0 ? ENOSPC : EIO);
    const Status made = create_one(*writer, "three");
    if (made.ok()) break;
    CHECK((made.error().code == ErrorCode::kIo || made.error().code == ErrorCode::kNoSpace));
    writer.reset();
    file.heal();
    auto again = open_writable(file);
    Quiet quiet;
    must(again->prepare_to_write(Writing::kBytes, quiet.progress, quiet.cancel));
    REQUIRE(check(*again).corruptions == 0);
    REQUIRE(read_all(*again) == before);
  }
}

TEST_CASE("I45: a snapshot that claims a disk that cannot be mapped is not applied, and the image stays as it is") {
  for (const std::uint64_t claimed : {std::uint64_t{1} << 54, std::uint64_t{1} << 60, ~std::uint64_t{0}}) {
    CAPTURE(claimed);
    MemoryFile file(with_two_snapshots(3));
    const std::uint64_t table = load_be64(file.bytes().data() + 64);
    store_be64(file.bytes().data() + table + 48, claimed);
    auto block = open_writable(file);
    const Disk before = read_all(*block);
    const Status refused = apply_one(*block, "one");
    REQUIRE_FALSE(refused.ok());
    CHECK(refused.error().code == ErrorCode::kImageCorrupt);
    CHECK(read_all(*open_readable(file)) == before);
  }
}

TEST_CASE("I47: snapshots of an image whose counts are wrong are left alone") {
  MemoryFile file(with_two_snapshots(3));
  const std::uint64_t table = load_be64(file.bytes().data() + 48);
  const std::uint64_t counts = load_be64(file.bytes().data() + table);
  store_be16(file.bytes().data() + counts + 2 * 20, 0);
  auto block = open_writable(file);
  for (const auto act : {create_one, apply_one, remove_one}) {
    const Status refused = act(*block, act == create_one ? "three" : "one");
    REQUIRE_FALSE(refused.ok());
    CHECK(refused.error().code == ErrorCode::kImageCorrupt);
  }
}

TEST_CASE("I30: a disk of no bytes, and one of which nothing is mapped, have snapshots as well") {
  const Scratch scratch;
  for (const std::uint64_t size : {0u, 1u << 20}) {
    CAPTURE(size);
    MemoryFile file(planned(disk(size)));
    auto block = open_writable(file);
    must(create_one(*block, "one"));
    must(apply_one(*block, "one"));
    CHECK(block->size() == size);
    CHECK(check(*block).leaks == 0);
    must(remove_one(*block, "one"));
    must_run("qemu-img check -q " + scratch.put("a", file.bytes()));
  }
}

TEST_CASE("names of snapshots have 1 to 255 bytes, and any of them") {
  MemoryFile file(planned(disk(512 * 100, 512)));
  auto block = open_writable(file);
  for (const std::string& name : {std::string(), std::string(256, 'n')}) {
    const Status refused = create_one(*block, name);
    REQUIRE_FALSE(refused.ok());
    CHECK(refused.error().code == ErrorCode::kInvalidArgument);
  }
  const std::vector<std::string> names = {std::string(255, 'n'), "ü", "a\nb"};
  for (const std::string& name : names) must(create_one(*block, name));
  CHECK(names_of(*block) == names);
}

}  // namespace sluicebox::image::qcow2
