// What can be read of a disk that fails in places is read, and the rest is told to the sector.
#include "image/salvaged_disk.h"

#include <doctest/doctest.h>

#include <functional>
#include <thread>

#include "image/formats/raw/raw.h"
#include "test/image/format_fixture.h"

namespace sluicebox::image {
namespace {

using testing::Image;
using testing::must;
using Part = UnreadableParts::Part;

const CancelToken never;

// A raw disk with sectors that fail.
class FailingDisk final : public Block {
 public:
  FailingDisk(const Image& bytes, std::vector<Part> bad, ErrorCode code = ErrorCode::kIo)
      : file_(bytes), block_(must(raw::open_raw(file_, false))), bad_(std::move(bad)), code_(code) {}

  DiskFormat format() const override { return block_->format(); }
  std::uint64_t size() const override { return block_->size(); }
  std::uint64_t allocation_unit() const override { return block_->allocation_unit(); }
  LayerInfo info() const override { return {}; }
  Status read(std::uint64_t offset, MutableBytes out) override {
    if (on_read) on_read();
    for (const Part& each : bad_) {
      if (offset < each.start + each.length && each.start < offset + out.size()) return Error(code_, "it fails there");
    }
    return block_->read(offset, out);
  }
  Result<BlockStatus> status(std::uint64_t offset, std::uint64_t length) override {
    if (status_fails_from_ <= offset) return Error(code_, "nobody knows");
    return block_->status(offset, std::min(length, status_fails_from_ - offset));
  }
  Status write(std::uint64_t, Bytes) override { return Error(ErrorCode::kInternal, "not written here"); }
  Status write_zeros(std::uint64_t, std::uint64_t) override { return Error(ErrorCode::kInternal, "not written here"); }
  Status flush() override { return {}; }

  std::function<void()> on_read;
  void fail_status_from(std::uint64_t offset) { status_fails_from_ = offset; }

 private:
  MemoryFile file_;
  std::unique_ptr<Block> block_;
  std::vector<Part> bad_;
  ErrorCode code_;
  std::uint64_t status_fails_from_ = UINT64_MAX;
};

void require_parts(const SalvagedDisk& disk, const std::vector<Part>& wanted) {
  const UnreadableParts told = disk.unreadable();
  std::uint64_t bytes = 0;
  REQUIRE(told.parts.size() == wanted.size());
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    CHECK(told.parts[i].start == wanted[i].start);
    CHECK(told.parts[i].length == wanted[i].length);
    bytes += wanted[i].length;
  }
  CHECK(told.bytes == bytes);
}

}  // namespace

TEST_CASE("I35: of a disk that fails in places all other bytes are read, and those places are told to the sector") {
  constexpr std::uint64_t kSize = (1 << 20) + 512;
  const Image bytes = testing::pattern(kSize, 7);
  const std::vector<Part> bad = {{0, 512}, {65536 - 512, 1024}, {300 * 512, 37 * 512}, {kSize - 512, 512}};
  for (const ErrorCode code : {ErrorCode::kIo, ErrorCode::kImageCorrupt}) {
    FailingDisk failing(bytes, bad, code);
    SalvagedDisk disk({&failing}, never);
    Image wanted = bytes;
    for (const Part& each : bad) {
      std::fill_n(wanted.begin() + static_cast<std::ptrdiff_t>(each.start), each.length, std::byte{0});
    }
    // In windows that two threads take in turn, so that what is told comes in no order.
    constexpr std::size_t kWindow = 96 * 512;
    Image read(kSize, std::byte{0xee});
    const auto every_other = [&](std::size_t first) {
      for (std::size_t at = first * kWindow; at < kSize; at += 2 * kWindow) {
        must(disk.read(at, MutableBytes(read).subspan(at, std::min(kWindow, kSize - at))));
      }
    };
    std::thread beside(every_other, 1);
    every_other(0);
    beside.join();
    CHECK((read == wanted));
    require_parts(disk, bad);
  }
}

TEST_CASE("I35: where nobody knows whether a disk has data it is read") {
  const Image bytes = testing::pattern(1 << 20, 8);
  FailingDisk failing(bytes, {});
  failing.fail_status_from(100 << 10);
  SalvagedDisk disk({&failing}, never);
  std::uint64_t at = 0;
  while (at < disk.size()) {
    const BlockStatus status = must(disk.status(at, disk.size() - at));
    REQUIRE(status.mapping == Mapping::kData);
    REQUIRE(status.length > 0);
    REQUIRE(status.length <= disk.size() - at);
    at += status.length;
  }
  // A view asks for the status before it reads.
  Image read(disk.size());
  must(disk.read(0, read));
  CHECK((Image(read.begin(), read.begin() + (100 << 10)) == Image(bytes.begin(), bytes.begin() + (100 << 10))));
  CHECK(all_zero(Bytes(read).subspan(100 << 10)));
  require_parts(disk, {{100 << 10, (1 << 20) - (100 << 10)}});
}

TEST_CASE("I53: a cancel is heard between the parts of what fails") {
  const Image bytes = testing::pattern(1 << 20, 7);
  FailingDisk failing(bytes, {{0, 1 << 20}});
  CancelToken cancel;
  SalvagedDisk disk({&failing}, cancel);
  int reads = 0;
  failing.on_read = [&] {
    if (++reads == 5) cancel.cancel();
  };
  Image out(1 << 20);
  CHECK(disk.read(0, out).error().code == ErrorCode::kCancelled);
  CHECK(reads == 5);
}

TEST_CASE("I35: only damage is salvaged: other errors are told") {
  FailingDisk failing(testing::pattern(4096, 9), {{512, 512}}, ErrorCode::kOutOfMemory);
  SalvagedDisk disk({&failing}, never);
  Image read(4096);
  CHECK(disk.read(0, read).error().code == ErrorCode::kOutOfMemory);
  require_parts(disk, {});
}

TEST_CASE("a disk that fails in more places than can be told is told by its bytes") {
  std::vector<Part> bad;
  for (std::uint64_t i = 0; i < 1500; ++i) bad.push_back({i * 1024, 512});
  FailingDisk failing(testing::pattern(1500 * 1024, 10), bad);
  SalvagedDisk disk({&failing}, never);
  Image read(disk.size());
  must(disk.read(0, read));
  const UnreadableParts told = disk.unreadable();
  CHECK(told.parts.size() == 1000);
  CHECK(told.bytes == 1500 * 512);
}

}  // namespace sluicebox::image
