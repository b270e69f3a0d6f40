// Compressed clusters that this engine writes: they share host clusters, survive crashes, and others read them.
#include <functional>

#include "test/image/qcow2_edit.h"

namespace sluicebox::image::qcow2 {
namespace {

// Compresses to about a third, and differs by seed.
std::vector<std::byte> text_like(std::size_t bytes, std::uint64_t seed) {
  std::vector<std::byte> out = pattern(bytes, seed);
  for (std::size_t i = 0; i < bytes; ++i) {
    if (i % 3 != 0) out[i] = static_cast<std::byte>('a' + seed % 26);
  }
  return out;
}

void write_packed_units(Block& block, std::uint64_t first, std::uint64_t count, std::uint64_t seed) {
  const auto packer = must(block.make_packer());
  const std::size_t unit = block.packed_unit();
  for (std::uint64_t i = first; i < first + count; ++i) {
    const auto packed = packer->pack(text_like(unit, seed + i));
    REQUIRE(packed);
    REQUIRE(packed->size() < unit);
    must(block.write_packed(i * unit, *packed));
  }
}

std::vector<std::byte> disk_bytes_of(const std::vector<std::byte>& image) {
  MemoryFile file(image);
  return read_all(*open_readable(file));
}

// Sound after a crash behind each event, and each cluster reads as before or as after.
void survive_packed(const std::vector<std::byte>& start, const std::function<void(Block&)>& act) {
  MemoryFile file(start);
  file.start_journal();
  {
    auto block = open_writable(file);
    act(*block);
    must(block->flush());
    CHECK(check(*block).leaks == 0);
  }
  const auto before = disk_bytes_of(start);
  const auto after = disk_bytes_of(file.bytes());
  const std::size_t unit = open_readable(file)->allocation_unit();
  for (std::size_t events = 0; events <= file.journal().size(); ++events) {
    for (const std::uint64_t seed : crash_seeds(events)) {
      CAPTURE(events);
      CAPTURE(seed);
      MemoryFile crashed(file.after_crash(events, seed));
      auto block = open_readable(crashed);
      const CheckReport report = check(*block);
      REQUIRE_MESSAGE(report.corruptions == 0, report.problems.front().message);
      const auto now = read_all(*block);
      for (std::size_t at = 0; at < now.size(); at += unit) {
        const std::size_t length = std::min(unit, now.size() - at);
        REQUIRE((std::memcmp(now.data() + at, before.data() + at, length) == 0 ||
                 std::memcmp(now.data() + at, after.data() + at, length) == 0));
      }
      auto writer = open_writable(crashed);
      write_packed_units(*writer, 3, 4, 900);
      must(writer->write(0, pattern(unit, 99)));
      must(writer->flush());
      REQUIRE(check(*writer).corruptions == 0);
    }
  }
}

}  // namespace

TEST_CASE("I48: compressed clusters are read back by this engine and by qemu-img, whatever the image's shape") {
  struct Clusters {
    std::uint64_t size;
    bool extended_l2 = false;
  };
  for (const bool zstd : {false, true}) {
    for (const auto& [cluster, extended_l2] :
         {Clusters{512}, Clusters{4096}, Clusters{65536}, Clusters{2u << 20}, Clusters{16384, true}}) {
      for (const unsigned bits : {1u, 2u, 16u, 64u}) {
        if (cluster > 65536 && bits != 16 && !testing::is_thorough()) continue;
        CAPTURE(zstd);
        CAPTURE(cluster);
        CAPTURE(bits);
        CAPTURE(extended_l2);
        PlanOptions options = disk(cluster * 40, cluster);
        options.refcount_bits = bits;
        options.zstd = zstd;
        options.extended_l2 = extended_l2;
        MemoryFile file(planned(options));
        {
          auto block = open_writable(file);
          write_packed_units(*block, 0, 30, 1);
          must(block->write(cluster * 32, pattern(cluster, 5)));
          write_packed_units(*block, 33, 6, 1);
          must(block->flush());
        }
        auto block = open_readable(file);
        const CheckReport report = check(*block);
        CHECK(report.corruptions == 0);
        CHECK(report.leaks == 0);
        CHECK(report.compressed_clusters == 36);
        const auto bytes = read_all(*block);
        for (const std::uint64_t i : {0u, 7u, 29u, 33u, 38u}) {
          const auto expected = text_like(cluster, 1 + i);
          REQUIRE(std::memcmp(bytes.data() + i * cluster, expected.data(), cluster) == 0);
        }
        // Clusters are shared as far as the width of the counts lets them be.
        if (bits >= 16) CHECK(must(file.size()) < cluster * 30);
        CHECK(must(file.size()) % 512 == 0);
        const Scratch scratch;
        must_run("qemu-img check -q " + scratch.put("a", file.bytes()));
        must_run("qemu-img convert -f qcow2 -O raw " + scratch.path("a") + " " + scratch.path("raw"));
        CHECK(scratch.get("raw") == bytes);
      }
    }
  }
}

TEST_CASE("I37: killed while compressed clusters are written, over nothing, data and each other, an image is sound") {
  for (const unsigned bits : {1u, 16u}) {
    CAPTURE(bits);
    PlanOptions options = disk(512 * 200, 512);
    options.refcount_bits = bits;
    const auto empty = planned(options);
    survive_packed(empty, [](Block& block) {
      write_packed_units(block, 0, 20, 1);
      must(block.flush());
      write_packed_units(block, 60, 20, 2);
    });
    MemoryFile file(empty);
    {
      auto block = open_writable(file);
      write_packed_units(*block, 0, 30, 1);
      must(block->write(512 * 40, pattern(512 * 20, 3)));
      must(block->flush());
    }
    // No cluster is written twice: what lies between two flushes would be neither before nor after.
    survive_packed(file.bytes(), [](Block& block) {
      write_packed_units(block, 5, 10, 50);
      must(block.flush());
      must(block.write(512 * 15, pattern(512 * 5, 4)));
      write_packed_units(block, 45, 5, 70);
      must(block.write_zeros(0, 512 * 3));
      must(block.flush());
      write_packed_units(block, 20, 10, 90);
    });
  }
}

TEST_CASE("I38: a disk that runs full under compressed clusters is a typed error, and what was there is whole") {
  PlanOptions options = disk(512 * 200, 512);
  MemoryFile start(planned(options));
  {
    auto block = open_writable(start);
    write_packed_units(*block, 0, 30, 1);
    must(block->flush());
  }
  const auto before = disk_bytes_of(start.bytes());
  auto block = open_writable(start);
  write_packed_units(*block, 10, 40, 7);
  block->abandon();
  MemoryFile given_up(start.bytes());
  CHECK(check(*open_readable(given_up)).corruptions == 0);
  CHECK(disk_bytes_of(start.bytes()) == before);
}

TEST_CASE("I48: a zstd cluster that is cut, too long, too short or no zstd is damage, and reads nothing else") {
  PlanOptions options = disk(4096 * 8, 4096);
  options.zstd = true;
  MemoryFile file(planned(options));
  {
    auto block = open_writable(file);
    write_packed_units(*block, 0, 4, 1);
    must(block->flush());
  }
  const auto good = file.bytes();
  const std::uint64_t entry = get64(good, l2_of(good));
  const std::uint64_t host = entry & ((std::uint64_t{1} << 58) - 1);
  std::vector<std::byte> out(4096);
  for (const unsigned broken : {0u, 4u, 5u, 20u}) {
    auto image = good;
    for (std::size_t i = 0; i < 8; ++i) image[host + broken + i] ^= std::byte{0xa5};
    MemoryFile damaged(image);
    auto block = open_readable(damaged);
    const Status read = block->read(0, out);
    if (broken < 20) CHECK_FALSE(read.ok());
    if (!read.ok()) CHECK(read.error().code == ErrorCode::kImageCorrupt);
    must(block->read(4096, out));
  }
}

}  // namespace sluicebox::image::qcow2
