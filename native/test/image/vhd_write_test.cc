#include <random>

#include "test/image/vhd_fixture.h"

namespace sluicebox::image::vhd {
namespace {

constexpr std::uint64_t kDisk = (3u << 20) + 512 * 7;  // the last block is cut by the disk's end

// Random writes and zeros, on the image and on a plain copy of the disk.
void scribble(Block& block, Image& model, std::uint64_t seed, int steps) {
  std::mt19937_64 random(seed);
  for (int i = 0; i < steps; ++i) {
    const std::uint64_t sectors = block.size() / 512;
    const std::uint64_t first = random() % sectors;
    const std::uint64_t count = std::min<std::uint64_t>(1 + random() % 300, sectors - first);
    if (random() % 4 == 0) {
      must(block.write_zeros(first * 512, count * 512));
      std::fill_n(model.begin() + static_cast<std::ptrdiff_t>(first * 512), count * 512, std::byte{0});
    } else {
      const Image data = testing::pattern(count * 512, random());
      must(block.write(first * 512, data));
      std::ranges::copy(data, model.begin() + static_cast<std::ptrdiff_t>(first * 512));
    }
    if (random() % 8 == 0) must(block.flush());
  }
}

void require_status_covers(Block& block) {
  for (std::uint64_t at = 0; at < block.size();) {
    const BlockStatus status = must(block.status(at, block.size() - at));
    REQUIRE(status.length > 0);
    REQUIRE(status.length <= block.size() - at);
    if (status.mapping != Mapping::kData) {
      Image bytes(status.length);
      must(block.read(at, bytes));
      REQUIRE(all_zero(bytes));
    }
    at += status.length;
  }
}

}  // namespace

TEST_CASE("a vhd reads what was written to it, and so does qemu-img") {
  const testing::TempDir directory;
  for (const bool fixed : {false, true}) {
    for (const std::uint64_t block_size : {kSmallBlock, std::uint64_t{kDefaultBlockBytes}}) {
      CAPTURE(fixed);
      CAPTURE(block_size);
      MemoryFile file(planned(fixed ? fixed_disk(kDisk) : dynamic_disk(kDisk, block_size)));
      Image model(kDisk);
      {
        auto block = open_writable(file);
        CHECK(block->allocation_unit() == 512);
        scribble(*block, model, 1, 60);
        CHECK(testing::read_all(*block) == model);
        must(block->flush());
      }
      auto again = open_readable(file);
      CHECK(testing::read_all(*again) == model);
      require_status_covers(*again);
      const CheckReport report = testing::check(*again);
      CHECK(report.corruptions + report.leaks == 0);
      const std::string path = directory.file("a.vhd");
      testing::put(path, file.bytes());
      const std::string bytes = testing::guest_bytes_by_qemu(path, "vpc", directory.file("raw"));
      REQUIRE(bytes.size() == model.size());
      CHECK(std::memcmp(bytes.data(), model.data(), model.size()) == 0);
    }
  }
}

TEST_CASE("what qemu-io writes into our vhd is read here, and the other way round") {
  const testing::TempDir directory;
  const std::string path = directory.file("a.vhd");
  MemoryFile file(planned(dynamic_disk(8 << 20, kDefaultBlockBytes)));
  {
    auto block = open_writable(file);
    must(block->write(0, Image(4096, std::byte{0x11})));
    must(block->flush());
  }
  testing::put(path, file.bytes());
  const testing::RunResult io =
      testing::qemu_io(path, "vpc", {"read -P 0x11 0 4k", "write -P 0x22 5M 64k", "write -P 0x33 512 512"});
  CAPTURE(io.output);
  CHECK(io.exit_code == 0);
  CHECK(io.output.find("failed") == std::string::npos);
  PosixFile theirs(UniqueFd(::open(path.c_str(), O_RDWR | O_CLOEXEC)), path);
  auto block = open_writable(theirs);
  Image bytes = testing::read_all(*block);
  CHECK(std::ranges::all_of(Bytes(bytes).subspan(5 << 20, 65536), [](std::byte b) { return b == std::byte{0x22}; }));
  CHECK(bytes[0] == std::byte{0x11});
  CHECK(bytes[512] == std::byte{0x33});
  CHECK(testing::check(*block).corruptions == 0);
  must(block->write(7 << 20, Image(512, std::byte{0x44})));
  must(block->flush());
  CHECK(testing::qemu_io(path, "vpc", {"read -P 0x44 7M 512", "read -P 0x22 5M 64k", "read -P 0 6M 1M"})
            .output.find("failed") == std::string::npos);
}

TEST_CASE("sectors whose bit in the block's bitmap is clear read as zeros, until they are written") {
  MemoryFile file(planned(dynamic_disk(1 << 20)));
  {
    auto block = open_writable(file);
    must(block->write(0, testing::pattern(kSmallBlock, 1)));
    must(block->flush());
  }
  const std::uint64_t bitmap_at = std::uint64_t{load_be32(file.bytes().data() + kTableAt)} * 512;
  file.bytes()[bitmap_at] = std::byte{0b10110111};  // sectors 1 and 4 are not there
  Image model = testing::pattern(kSmallBlock, 1);
  for (const std::size_t sector : {1u, 4u}) {
    std::fill_n(model.begin() + static_cast<std::ptrdiff_t>(sector * 512), 512, std::byte{0});
  }
  auto block = open_writable(file);
  Image now(kSmallBlock);
  must(block->read(0, now));
  CHECK(now == model);
  CHECK(must(block->status(512, 4096)).mapping == Mapping::kUnallocated);
  CHECK(must(block->status(512, 4096)).length == 512);
  must(block->write(4 * 512, Image(512, std::byte{0x66})));
  std::fill_n(model.begin() + 4 * 512, 512, std::byte{0x66});
  must(block->read(0, now));
  CHECK(now == model);
  must(block->flush());
  CHECK(file.bytes()[bitmap_at] == std::byte{0b10111111});
  must(open_readable(file)->read(0, now));
  CHECK(now == model);
}

TEST_CASE("what was given up leaves neither bytes nor space behind") {
  MemoryFile file(planned(dynamic_disk(4 << 20)));
  auto block = open_writable(file);
  must(block->write(0, testing::pattern(512, 1)));
  must(block->flush());
  const Image kept = file.bytes();
  must(block->write(2 << 20, testing::pattern(1 << 20, 2)));
  block->abandon();
  CHECK(file.bytes() == kept);
}

TEST_CASE("a write must cover whole sectors of the disk, and a vhd that was opened for reading is not written") {
  for (const bool fixed : {false, true}) {
    MemoryFile file(planned(fixed ? fixed_disk(1 << 20) : dynamic_disk(1 << 20)));
    const Image before = file.bytes();
    auto block = open_writable(file);
    CHECK(block->write(1, Image(512)).error().code == ErrorCode::kInvalidArgument);
    CHECK(block->write(0, Image(511)).error().code == ErrorCode::kInvalidArgument);
    CHECK(block->write(1 << 20, Image(512)).error().code == ErrorCode::kInvalidArgument);
    CHECK(block->write_zeros((1 << 20) - 512, 1024).error().code == ErrorCode::kInvalidArgument);
    CHECK(block->write(UINT64_MAX - 511, Image(512)).error().code == ErrorCode::kInvalidArgument);
    Image out(1024);
    CHECK(block->read((1 << 20) - 512, out).error().code == ErrorCode::kInvalidArgument);
    CHECK(block->can_set_backing(BackingReference{"b", "vpc"}).error().code == ErrorCode::kUnsupported);
    CHECK(block->make_empty().error().code == ErrorCode::kUnsupported);
    block.reset();
    CHECK(open_readable(file)->write(0, Image(512)).error().code == ErrorCode::kInvalidArgument);
    CHECK(file.bytes() == before);
  }
}

TEST_CASE("I37: killed at any write or sync, a vhd is sound and reads as before or after") {
  const Image empty = planned(dynamic_disk(3 << 20));
  testing::survive(empty, open_either, [](Block& block) {
    must(block.write(512 * 3, testing::pattern(4096, 1)));
    must(block.write(2 << 20, testing::pattern(1024, 2)));
    must(block.flush());
    must(block.write(512 * 40, testing::pattern(512, 3)));
    must(block.write(kSmallBlock - 512, testing::pattern(1024, 4)));
  });
  MemoryFile file(empty);
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
  testing::survive(planned(fixed_disk(64 << 10)), open_either,
                   [](Block& block) { must(block.write(4096, testing::pattern(8192, 7))); });
}

TEST_CASE("I38: a write to a vhd that fails midway is a typed error, and the image is sound") {
  testing::fail_midway(planned(dynamic_disk(3 << 20)), open_either, [](Block& block) -> Status {
    TRY(block.write(512 * 3, testing::pattern(4096, 1)));
    TRY(block.write(2 << 20, testing::pattern(1024, 2)));
    TRY(block.flush());
    return block.write(1 << 20, testing::pattern(1024, 3));
  });
}

}  // namespace sluicebox::image::vhd
