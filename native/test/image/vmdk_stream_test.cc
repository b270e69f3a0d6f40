#include <libdeflate.h>

#include "image/formats/vmdk/header.h"
#include "image/formats/vmdk/stream_writer.h"
#include "test/image/vmdk_fixture.h"

namespace sluicebox::image::vmdk {
namespace {

constexpr std::uint64_t kStreamGrain = 65536;
constexpr std::uint64_t kStreamSize = (40u << 20) + 512 * 3;

struct Stream {
  std::vector<std::byte> bytes, disk;
};

// Some grains of data, in three tables' reach, the last one cut by the end of the disk.
Stream written_stream() {
  Stream made{.bytes = {}, .disk = std::vector<std::byte>(kStreamSize)};
  MemoryFile file;
  auto writer = must(StreamWriter::begin(file, disk(kStreamSize, kStreamGrain, Subformat::kStreamOptimized)));
  const auto add = [&](std::uint64_t offset, std::vector<std::byte> data) {
    must(writer->write(offset, data));
    std::copy(data.begin(), data.end(), made.disk.begin() + static_cast<std::ptrdiff_t>(offset));
  };
  add(0, pattern(kStreamGrain, 1));
  add(2 * kStreamGrain, std::vector<std::byte>(kStreamGrain, std::byte{7}));
  add(600 * kStreamGrain, pattern(kStreamGrain, 2));
  add(640 * kStreamGrain, pattern(512 * 3, 3));
  must(writer->finish());
  made.bytes = file.bytes();
  return made;
}

std::uint64_t footer_at(const std::vector<std::byte>& bytes) { return bytes.size() - 1024; }

}  // namespace

TEST_CASE("a stream that is written reads back, here and in qemu-img, and takes less room") {
  const Stream made = written_stream();
  MemoryFile file(made.bytes);
  auto block = open_readable(file);
  CHECK(read_all(*block) == made.disk);
  CHECK(must(block->status(0, kStreamSize)).compressed);
  CHECK(must(block->status(kStreamGrain, kStreamSize)).mapping == Mapping::kUnallocated);
  const CheckReport report = check(*block);
  CHECK(report.corruptions == 0);
  CHECK(report.compressed_clusters == 4);
  CHECK(made.bytes.size() < 4 * kStreamGrain);
  const TempDir directory;
  put(directory.file("a.vmdk"), made.bytes);
  CHECK(testing::guest_bytes_by_qemu(directory.file("a.vmdk"), "vmdk", directory.file("raw")) == text_of(made.disk));
}

TEST_CASE("what qemu-img converts to streamOptimized reads the same here, with its directory in front") {
  const TempDir directory;
  const auto guest = pattern(3 << 20, 5);
  put(directory.file("raw"), guest);
  must_run(qemu_img({"convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", directory.file("raw"),
                     directory.file("a.vmdk")}));
  MemoryFile file(get(directory.file("a.vmdk")));
  auto block = open_readable(file);
  CHECK(read_all(*block) == guest);
  CHECK(check(*block).corruptions == 0);
}

TEST_CASE("a stream is refused to writers, and grains out of order to the stream's") {
  MemoryFile file(written_stream().bytes);
  CHECK(open_vmdk(file, {.writable = true}).error().code == ErrorCode::kUnsupported);
  MemoryFile fresh;
  auto writer = must(StreamWriter::begin(fresh, disk(1 << 20, kStreamGrain, Subformat::kStreamOptimized)));
  const auto grain = pattern(kStreamGrain, 1);
  must(writer->write(kStreamGrain, grain));
  CHECK(writer->write(kStreamGrain, grain).error().code == ErrorCode::kInvalidArgument);
  CHECK(writer->write(0, grain).error().code == ErrorCode::kInvalidArgument);
  CHECK(writer->write(1 << 20, grain).error().code == ErrorCode::kInvalidArgument);
  CHECK(writer->write(3 * kStreamGrain + 512, grain).error().code == ErrorCode::kInvalidArgument);
  must(writer->finish());
  CHECK(writer->write(5 * kStreamGrain, grain).error().code == ErrorCode::kInvalidArgument);
  MemoryFile none;
  CHECK(StreamWriter::begin(none, disk(1 << 20)).error().code == ErrorCode::kInvalidArgument);
}

TEST_CASE("I37: a stream that was not finished is no image") {
  MemoryFile file;
  auto writer = must(StreamWriter::begin(file, disk(1 << 20, kStreamGrain, Subformat::kStreamOptimized)));
  must(writer->write(0, pattern(kStreamGrain, 1)));
  MemoryFile torn(file.bytes());
  CHECK(open_vmdk(torn, {}).error().code == ErrorCode::kImageCorrupt);
}

TEST_CASE("I38: a full disk while a stream is written is a typed error") {
  MemoryFile file;
  auto writer = must(StreamWriter::begin(file, disk(1 << 20, kStreamGrain, Subformat::kStreamOptimized)));
  file.limit_size(file.bytes().size() + 1000);
  CHECK(writer->write(0, pattern(kStreamGrain, 1)).error().code == ErrorCode::kNoSpace);
}

TEST_CASE("I48: a grain inflates to one grain at most; truncated, oversized and misplaced ones are IMAGE_CORRUPT") {
  const Stream made = written_stream();
  const std::size_t first = 128 * 512;  // of the first grain's marker
  const auto refusal = [&](const std::function<void(std::vector<std::byte>&)>& damage) {
    auto bytes = made.bytes;
    damage(bytes);
    MemoryFile file(std::move(bytes));
    auto block = open_readable(file);
    std::vector<std::byte> grain(kStreamGrain);
    const Status read = block->read(0, grain);
    REQUIRE_FALSE(read.ok());
    CHECK(check(*block).corruptions <= 1);
    must(block->read(2 * kStreamGrain, grain));
    return read.error().code;
  };
  CHECK(refusal([&](auto& bytes) { store_le64(bytes.data() + first, 128); }) == ErrorCode::kImageCorrupt);
  CHECK(refusal([&](auto& bytes) { store_le32(bytes.data() + first + 8, 0); }) == ErrorCode::kImageCorrupt);
  CHECK(refusal([&](auto& bytes) { store_le32(bytes.data() + first + 8, 0xffffffff); }) == ErrorCode::kImageCorrupt);
  CHECK(refusal([&](auto& bytes) { store_le32(bytes.data() + first + 8, 100); }) == ErrorCode::kImageCorrupt);
  CHECK(refusal([&](auto& bytes) { bytes[first + 20] ^= std::byte{0xff}; }) == ErrorCode::kImageCorrupt);
  // 32 MiB of zeros in some 33 KiB.
  CHECK(refusal([&](auto& bytes) {
          const std::vector<std::byte> bomb(32u << 20);
          libdeflate_compressor* compressor = libdeflate_alloc_compressor(9);
          std::vector<std::byte> packed(70'000);
          const std::size_t length =
              libdeflate_zlib_compress(compressor, bomb.data(), bomb.size(), packed.data(), packed.size());
          libdeflate_free_compressor(compressor);
          REQUIRE(length > 0);
          REQUIRE(length < kStreamGrain);
          // Over the grain, which did not compress, and so has the room.
          store_le32(bytes.data() + first + 8, static_cast<std::uint32_t>(length));
          std::copy_n(packed.begin(), length, bytes.begin() + static_cast<std::ptrdiff_t>(first + 12));
        }) == ErrorCode::kImageCorrupt);
  // A short one: half a grain.
  CHECK(refusal([&](auto& bytes) {
          GrainPacker packer(kStreamGrain / 2);
          const auto packed = must(packer.pack(0, pattern(kStreamGrain / 2, 1)));
          std::copy(packed.begin(), packed.end(), bytes.begin() + static_cast<std::ptrdiff_t>(first));
        }) == ErrorCode::kImageCorrupt);
}

TEST_CASE("I50: a footer that is missing, or disagrees with the header, is IMAGE_CORRUPT") {
  const Stream made = written_stream();
  const auto refusal = [&](const std::function<void(std::vector<std::byte>&)>& damage) {
    auto bytes = made.bytes;
    damage(bytes);
    MemoryFile file(std::move(bytes));
    const auto opened = open_vmdk(file, {});
    REQUIRE_FALSE(opened.ok());
    return opened.error().code;
  };
  const std::size_t footer = footer_at(made.bytes);
  CHECK(refusal([&](auto& bytes) { bytes.resize(bytes.size() - 512); }) == ErrorCode::kImageCorrupt);
  CHECK(refusal([&](auto& bytes) { bytes.resize(bytes.size() + 1); }) == ErrorCode::kImageCorrupt);
  CHECK(refusal([&](auto& bytes) { bytes.resize(512); }) == ErrorCode::kImageCorrupt);
  CHECK(refusal([&](auto& bytes) { bytes[footer - 512 + 12] = std::byte{2}; }) == ErrorCode::kImageCorrupt);
  CHECK(refusal([&](auto& bytes) { store_le64(bytes.data() + footer + at::kCapacity, 5); }) ==
        ErrorCode::kImageCorrupt);
  CHECK(refusal([&](auto& bytes) { store_le64(bytes.data() + footer + at::kDirectory, kDirectoryAtEnd); }) ==
        ErrorCode::kImageCorrupt);
  CHECK(refusal([&](auto& bytes) { store_le64(bytes.data() + footer + at::kDirectory, 1u << 30); }) ==
        ErrorCode::kImageCorrupt);
}

}  // namespace sluicebox::image::vmdk
