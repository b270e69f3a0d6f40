#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>

#include "image/formats/raw/raw.h"
#include "image/ops/check.h"
#include "image/ops/info.h"
#include "test/image/operation.h"
#include "test/image/temp_dir.h"

namespace sluicebox::image {
namespace {

using testing::Operation;
using testing::TempDir;

struct RawImage {
  TempDir directory;
  std::string path = directory.file("disk.raw");
  Operation operation;
  Layer open(Access access) { return open_layer(path, DiskFormat::kRaw, access, operation.context).value(); }
};

}  // namespace

TEST_CASE("a raw file is a disk of its size rounded up to a sector, and reads zeros behind its end") {
  RawImage image;
  std::ofstream(image.path) << std::string(511, 'x');
  const Layer layer = image.open(Access::kRead);
  CHECK(layer.block->size() == 512);
  std::array<std::byte, 512> out = {};
  REQUIRE(layer.block->read(0, out).ok());
  CHECK(out[510] == std::byte{'x'});
  CHECK(out[511] == std::byte{0});
  CHECK(layer.block->read(1, out).error().code == ErrorCode::kInternal);
}

TEST_CASE("a raw file that another program cuts while it is open is an error, not a disk of zeros") {
  RawImage image;
  std::ofstream(image.path) << std::string(100'000, 'x');
  const Layer layer = image.open(Access::kRead);
  std::filesystem::resize_file(image.path, 50'000);
  std::array<std::byte, 4096> out = {};
  CHECK(layer.block->read(45'056, out).ok());
  CHECK(layer.block->read(49'152, out).error().code == ErrorCode::kIo);
  CHECK(layer.block->read(90'112, out).error().code == ErrorCode::kIo);
  CHECK(layer.block->status(90'112, 4096).error().code == ErrorCode::kIo);
}

TEST_CASE("a hole of a raw file is zero and its data are found where they lie") {
  RawImage image;
  std::ofstream file(image.path);
  file.seekp(1 << 20);
  file << std::string(65536, 'x');
  file.close();
  std::filesystem::resize_file(image.path, 4 << 20);
  const Layer layer = image.open(Access::kRead);
  BlockStatus status = layer.block->status(0, 4 << 20).value();
  CHECK(status.mapping == Mapping::kZero);
  CHECK(status.length == 1 << 20);
  status = layer.block->status(1 << 20, 3 << 20).value();
  CHECK(status.mapping == Mapping::kData);
  CHECK(status.length == 65536);
  CHECK(status.host_offset == 1 << 20);
}

TEST_CASE("writes and zeros go to a raw file, and zeros over a hole leave it one") {
  RawImage image;
  std::ofstream(image.path) << std::string(8192, 'x');
  std::filesystem::resize_file(image.path, 64 << 20);
  const Layer layer = image.open(Access::kWrite);
  REQUIRE(layer.block->write(512, as_bytes(std::string(512, 'y'))).ok());
  REQUIRE(layer.block->write_zeros(1024, (64 << 20) - 1024).ok());
  REQUIRE(layer.block->flush().ok());
  CHECK(layer.file->allocated_bytes().value() <= 65536);
  std::array<std::byte, 8192> out = {};
  REQUIRE(layer.block->read(0, out).ok());
  CHECK(out[511] == std::byte{'x'});
  CHECK(out[512] == std::byte{'y'});
  CHECK(all_zero(Bytes(out).subspan(1024)));
}

TEST_CASE("a raw image opened for reading is not written, and has no metadata to check nor backing to set") {
  RawImage image;
  std::ofstream(image.path) << std::string(512, 'x');
  {
    const Layer layer = image.open(Access::kRead);
    CHECK_FALSE(layer.block->write(0, as_bytes(std::string(512, 'y'))).ok());
    CHECK(layer.block->can_set_backing(std::nullopt).error().code == ErrorCode::kUnsupported);
  }
  Operation operation;
  CHECK(check_image(image.path, {}, operation.context).error().code == ErrorCode::kUnsupported);
}

TEST_CASE("I44: an image declared raw stays raw whatever its guest writes into it") {
  RawImage image;
  std::ofstream(image.path) << std::string("QFI\xfb\0\0\0\3", 8) + std::string(1016, 'x');
  Operation operation;
  const ImageInfo info = image_info(image.path, {.format = DiskFormat::kRaw}, operation.context).value();
  CHECK(info.format == DiskFormat::kRaw);
  CHECK(info.virtual_bytes == 1024);
  CHECK_FALSE(info.backing.has_value());
}

}  // namespace sluicebox::image
