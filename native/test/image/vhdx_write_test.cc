#include <random>

#include "test/image/vhdx_fixture.h"

namespace sluicebox::image::vhdx {
namespace {

constexpr std::uint64_t kWrittenDisk = (4u << 20) + 4096 * 3;  // the last block is cut by the disk's end

void scribble(Block& block, Image& model, std::uint64_t seed, int steps) {
  std::mt19937_64 random(seed);
  const std::uint64_t unit = block.allocation_unit();
  for (int i = 0; i < steps; ++i) {
    const std::uint64_t units = block.size() / unit;
    const std::uint64_t first = random() % units;
    const std::uint64_t count = std::min<std::uint64_t>(1 + random() % 100, units - first);
    if (random() % 4 == 0) {
      must(block.write_zeros(first * unit, count * unit));
      std::fill_n(model.begin() + static_cast<std::ptrdiff_t>(first * unit), count * unit, std::byte{0});
    } else {
      const Image data = testing::pattern(count * unit, random());
      must(block.write(first * unit, data));
      std::ranges::copy(data, model.begin() + static_cast<std::ptrdiff_t>(first * unit));
    }
    if (random() % 8 == 0) must(block.flush());
  }
}

}  // namespace

TEST_CASE("a vhdx reads what was written to it, and so does qemu-img, with no log left") {
  const testing::TempDir directory;
  for (const bool fixed : {false, true}) {
    for (const std::uint64_t block_size : {kMiB, 8 * kMiB}) {
      for (const std::uint32_t sector : {512u, 4096u}) {
        CAPTURE(fixed);
        CAPTURE(block_size);
        CAPTURE(sector);
        PlanOptions options = disk(kWrittenDisk, block_size, fixed);
        options.sector_size = sector;
        MemoryFile file(planned(options));
        Image model(kWrittenDisk);
        {
          auto block = open_writable(file);
          CHECK(block->allocation_unit() == sector);
          scribble(*block, model, 1, 60);
          CHECK(testing::read_all(*block) == model);
          must(block->flush());
        }
        auto again = open_readable(file);
        CHECK(testing::read_all(*again) == model);
        CHECK_FALSE(again->info().dirty);
        const CheckReport report = testing::check(*again);
        CHECK(report.corruptions + report.leaks == 0);
        for (std::uint64_t at = 0; at < again->size();) {
          const BlockStatus status = must(again->status(at, again->size() - at));
          REQUIRE(status.length > 0);
          Image bytes(status.length);
          must(again->read(at, bytes));
          if (status.mapping != Mapping::kData) REQUIRE(all_zero(bytes));
          at += status.length;
        }
        if (sector != 512) continue;  // QEMU refuses others
        const std::string path = directory.file("a.vhdx");
        testing::put(path, file.bytes());
        const std::string bytes = testing::guest_bytes_by_qemu(path, "vhdx", directory.file("raw"));
        REQUIRE(bytes.size() == model.size());
        CHECK(std::memcmp(bytes.data(), model.data(), model.size()) == 0);
        CHECK(testing::qemu_img({"check", "-f", "vhdx", path}).exit_code == 0);
      }
    }
  }
}

TEST_CASE("what qemu-io writes into our vhdx is read here, and the other way round") {
  const testing::TempDir directory;
  const std::string path = directory.file("a.vhdx");
  MemoryFile file(planned(disk(8 << 20)));
  {
    auto block = open_writable(file);
    must(block->write(0, Image(4096, std::byte{0x11})));
    must(block->flush());
  }
  testing::put(path, file.bytes());
  const testing::RunResult io =
      testing::qemu_io(path, "vhdx", {"read -P 0x11 0 4k", "write -P 0x22 5M 64k", "write -P 0x33 512 512"});
  CAPTURE(io.output);
  CHECK(io.exit_code == 0);
  CHECK(io.output.find("failed") == std::string::npos);
  PosixFile theirs(UniqueFd(::open(path.c_str(), O_RDWR | O_CLOEXEC)), path);
  auto block = open_writable(theirs);
  const Image bytes = testing::read_all(*block);
  CHECK(std::ranges::all_of(Bytes(bytes).subspan(5 << 20, 65536), [](std::byte b) { return b == std::byte{0x22}; }));
  CHECK(bytes[0] == std::byte{0x11});
  CHECK(bytes[512] == std::byte{0x33});
  CHECK(testing::check(*block).corruptions == 0);
  must(block->write(7 << 20, Image(512, std::byte{0x44})));
  must(block->flush());
  CHECK(testing::qemu_io(path, "vhdx", {"read -P 0x44 7M 512", "read -P 0x22 5M 64k", "read -P 0 6M 1M"})
            .output.find("failed") == std::string::npos);
}

TEST_CASE("the header's ids change before the first write, and only then") {
  MemoryFile file(planned(disk(4 << 20)));
  const Header old = newest_header(file.bytes());
  {
    auto block = open_writable(file);
    Image out(512);
    must(block->read(0, out));
    must(block->flush());
    CHECK(newest_header(file.bytes()) == old);
    must(block->write(0, Image(512, std::byte{1})));
    const Header now = newest_header(file.bytes());
    CHECK(now.file_write != old.file_write);
    CHECK(now.data_write != old.data_write);
    CHECK(now.sequence == old.sequence + 2);
    // Both copies say the same.
    CHECK(header_of(file.bytes(), 0)->data_write == header_of(file.bytes(), 1)->data_write);
    must(block->write(4096, Image(512, std::byte{2})));
    CHECK(newest_header(file.bytes()) == now);
    must(block->flush());
    CHECK(is_nil(newest_header(file.bytes()).log));
  }
  // A repair changes the file, and nothing that a guest sees.
  file.bytes().resize(file.bytes().size() + (4 << 20));
  const Header before = newest_header(file.bytes());
  CHECK(testing::check(*open_writable(file), Repair::kLeaks).leaks_fixed == 4);
  CHECK(newest_header(file.bytes()).file_write != before.file_write);
  CHECK(newest_header(file.bytes()).data_write == before.data_write);
}

TEST_CASE("more changes of the table than the log holds are made in several steps") {
  // 2^18 blocks of 1 MiB are 512 pages of entries, and a log of 1 MiB has room for 253.
  const testing::TempDir directory;
  const std::string path = directory.file("a.vhdx");
  const PlanOptions options = disk(std::uint64_t{1} << 38);
  std::vector<std::byte> scratch(must(plan_scratch_size(options)));
  testing::put(path, testing::apply(must(plan_vhdx(options, scratch))));
  PosixFile file(UniqueFd(::open(path.c_str(), O_RDWR | O_CLOEXEC)), path);
  {
    auto block = open_writable(file);
    for (std::uint64_t at = 0; at < options.virtual_size; at += std::uint64_t{512} << 20) {
      must(block->write(at, testing::pattern(512, at)));
    }
    must(block->flush());
  }
  auto block = open_readable(file);
  for (std::uint64_t at = 0; at < options.virtual_size; at += std::uint64_t{512} << 20) {
    Image out(512);
    must(block->read(at, out));
    REQUIRE(out == testing::pattern(512, at));
  }
  const CheckReport report = testing::check(*block);
  CHECK(report.corruptions + report.leaks == 0);
  CHECK(report.allocated_clusters == 512);
  CHECK(testing::qemu_img({"check", "-f", "vhdx", path}).exit_code == 0);
}

TEST_CASE("what was given up leaves neither bytes nor space behind in a vhdx") {
  MemoryFile file(planned(disk(8 << 20)));
  auto block = open_writable(file);
  must(block->write(0, testing::pattern(512, 1)));
  must(block->flush());
  const std::size_t kept = file.bytes().size();
  must(block->write(2 << 20, testing::pattern(3 << 20, 2)));
  block->abandon();
  CHECK(file.bytes().size() == kept);
  auto again = open_readable(file);
  const CheckReport report = testing::check(*again);
  CHECK(report.corruptions + report.leaks == 0);
  CHECK(must(again->status(2 << 20, 512)).mapping != Mapping::kData);
}

TEST_CASE("a write must cover whole sectors of the disk, and a vhdx that was opened for reading is not written") {
  PlanOptions options = disk(1 << 20);
  options.sector_size = 4096;
  MemoryFile file(planned(options));
  const Image before = file.bytes();
  auto block = open_writable(file);
  CHECK(block->write(512, Image(4096)).error().code == ErrorCode::kInvalidArgument);
  CHECK(block->write(0, Image(512)).error().code == ErrorCode::kInvalidArgument);
  CHECK(block->write(1 << 20, Image(4096)).error().code == ErrorCode::kInvalidArgument);
  CHECK(block->write_zeros((1 << 20) - 4096, 8192).error().code == ErrorCode::kInvalidArgument);
  CHECK(block->write(UINT64_MAX - 4095, Image(4096)).error().code == ErrorCode::kInvalidArgument);
  CHECK(block->can_set_backing(BackingReference{"b", "vhdx"}).error().code == ErrorCode::kUnsupported);
  block.reset();
  CHECK(open_readable(file)->write(0, Image(4096)).error().code == ErrorCode::kInvalidArgument);
  CHECK(file.bytes() == before);
}

TEST_CASE("I37: killed at any write or sync, a vhdx is sound and reads as before or after") {
  testing::survive(planned(disk(3 << 20)), open_either, [](Block& block) {
    must(block.write(512 * 3, testing::pattern(4096, 1)));
    must(block.flush());
    must(block.write(512 * 40, testing::pattern(512, 3)));
    must(block.write(kMiB - 512, testing::pattern(1024, 4)));
  });
  MemoryFile file(planned(disk(2 << 20)));
  {
    auto block = open_writable(file);
    must(block->write(0, testing::pattern(65536, 5)));
    must(block->flush());
  }
  testing::survive(file.bytes(), open_either, [](Block& block) {
    must(block.write_zeros(4096, 8192));
    must(block.write_zeros(1 << 20, 8192));
    must(block.write(1 << 20, testing::pattern(512, 6)));
  });
  testing::survive(planned(disk(1 << 20, kMiB, true)), open_either,
                   [](Block& block) { must(block.write(4096, testing::pattern(8192, 7))); });
}

TEST_CASE("I38: a write to a vhdx that fails midway is a typed error, and the image is sound") {
  testing::fail_midway(planned(disk(2 << 20)), open_either, [](Block& block) -> Status {
    TRY(block.write(512 * 3, testing::pattern(4096, 1)));
    TRY(block.flush());
    return block.write(1 << 20, testing::pattern(1024, 3));
  });
}

}  // namespace sluicebox::image::vhdx
