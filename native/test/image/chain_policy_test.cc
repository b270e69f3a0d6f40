#include <doctest/doctest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "image/ops/info.h"
#include "test/image/operation.h"
#include "test/image/qemu.h"
#include "test/image/temp_dir.h"

namespace sluicebox::image {
namespace {

using testing::Operation;
using testing::TempDir;

// An overlay that names `backing` without anybody having opened it.
std::string overlay_naming(const TempDir& directory, const std::string& backing, const std::string& format = "raw") {
  const std::string path = directory.file("overlay.qcow2");
  const testing::RunResult made =
      testing::qemu_img({"create", "-q", "-u", "-f", "qcow2", "-b", backing, "-F", format, path, "1M"});
  INFO(made.output);
  REQUIRE(made.exit_code == 0);
  return path;
}

// The code with which the chain is refused, or nothing.
std::optional<Error> chain_error(const std::string& path, std::vector<std::string> allowed = {}) {
  Operation operation(std::move(allowed));
  const Result<ImageInfo> info = image_info(path, {.chain = true}, operation.context);
  if (info.ok()) return std::nullopt;
  return info.error();
}

void touch(const std::string& path) {
  std::ofstream(path) << "secret";
  std::filesystem::resize_file(path, 1 << 20);
}

}  // namespace

TEST_CASE(
    "I41: absolute, .. and symlink escapes are refused, with a hint that names allowPaths, and open when allowed") {
  const TempDir directory, elsewhere;
  touch(elsewhere.file("secret"));
  const std::string name = std::filesystem::path(elsewhere.path()).filename().string();
  std::filesystem::create_symlink(elsewhere.file("secret"), directory.file("link"));
  std::filesystem::create_directory_symlink(elsewhere.path(), directory.file("folder"));
  for (const std::string& backing :
       {elsewhere.file("secret"), "../" + name + "/secret", std::string("link"), std::string("folder/secret")}) {
    CAPTURE(backing);
    const std::string path = overlay_naming(directory, backing);
    const Error error = chain_error(path).value();
    CHECK(error.code == ErrorCode::kPathRefused);
    CHECK(error.hint.find("allowPaths") != std::string::npos);
    CHECK_FALSE(chain_error(path, {elsewhere.path()}).has_value());
    CHECK_FALSE(chain_error(path, {"/"}).has_value());
    Operation operation;
    CHECK_FALSE(image_info(path, {}, operation.context).value().backing->exists);
  }
}

TEST_CASE("I41: a backing in the image's own directory, or below it, is found") {
  const TempDir directory;
  std::filesystem::create_directory(directory.file("sub"));
  touch(directory.file("sub/base"));
  for (const std::string& backing : {std::string("sub/base"), directory.file("sub/base"), std::string("./sub/base")}) {
    CAPTURE(backing);
    const std::string path = overlay_naming(directory, backing);
    CHECK_FALSE(chain_error(path).has_value());
    Operation operation;
    CHECK(image_info(path, {}, operation.context).value().backing->exists);
  }
}

TEST_CASE("I42: protocol names and JSON in an image are data, not commands") {
  const TempDir directory;
  touch(directory.file("base"));
  const std::string path = directory.file("overlay.qcow2");
  for (const std::string& backing :
       {std::string("json:{\"driver\":\"file\",\"filename\":\"base\"}"), std::string("file:base"),
        std::string("nbd://localhost/x"), std::string("fat:rw:/"), std::string("http://localhost/x")}) {
    CAPTURE(backing);
    // qemu-img refuses to write some of these, so the name is written over one of the same length.
    const std::string stand_in(backing.size(), 'x');
    overlay_naming(directory, stand_in);
    std::string image = testing::slurp(path);
    image.replace(image.find(stand_in), stand_in.size(), backing);
    std::ofstream(path, std::ios::binary) << image;
    for (const char* allowed : {"/nowhere", "/"}) {
      CHECK(chain_error(path, {allowed}).value().code == ErrorCode::kPathRefused);
    }
    Operation operation({"/"});
    const ImageInfo info = image_info(path, {}, operation.context).value();
    CHECK(info.backing->path == backing);
    CHECK_FALSE(info.backing->exists);
  }
}

TEST_CASE("I42: a FIFO, a directory or a device that an image names is refused without blocking") {
  const TempDir directory;
  REQUIRE(::mkfifo(directory.file("fifo").c_str(), 0600) == 0);
  for (const std::string& backing : {std::string("fifo"), std::string("."), std::string("/dev/zero")}) {
    CAPTURE(backing);
    CHECK(chain_error(overlay_naming(directory, backing), {"/"}).value().code == ErrorCode::kPathRefused);
  }
}

TEST_CASE("I14: a raw base that looks like qcow2 is followed nowhere") {
  const TempDir directory;
  touch(directory.file("secret"));
  const testing::RunResult made = testing::qemu_img(
      {"create", "-q", "-f", "qcow2", "-b", "secret", "-F", "raw", directory.file("guest-wrote-this"), "1M"});
  REQUIRE(made.exit_code == 0);
  Operation operation;
  const ImageInfo info =
      image_info(overlay_naming(directory, "guest-wrote-this", "raw"), {.chain = true}, operation.context).value();
  REQUIRE(info.chain.size() == 2);
  CHECK(info.chain[1].format == DiskFormat::kRaw);
}

TEST_CASE("a backing of a format that is not built is unsupported, by name; a plain info still tells all") {
  const TempDir directory;
  touch(directory.file("base"));
  const std::string path = overlay_naming(directory, "base", "qed");
  const Error error = chain_error(path).value();
  CHECK(error.code == ErrorCode::kUnsupported);
  CHECK(error.message.find("qed") != std::string::npos);
  Operation operation;
  CHECK(image_info(path, {}, operation.context).value().backing->format == "qed");
}

TEST_CASE("a caller's file with the header of another format is not taken for a raw disk") {
  const TempDir directory;
  for (const char* format : {"qed", "parallels", "qcow"}) {
    CAPTURE(format);
    const std::string path = directory.file(format);
    REQUIRE(testing::qemu_img({"create", "-q", "-f", format, path, "4M"}).exit_code == 0);
    Operation operation;
    CHECK(image_info(path, {}, operation.context).error().code == ErrorCode::kUnsupported);
    CHECK(image_info(path, {.format = DiskFormat::kRaw}, operation.context).ok());
  }
}

TEST_CASE("I41: a restricted caller names only what lies in the allowed directories") {
  const TempDir inside, outside;
  touch(inside.file("a"));
  touch(outside.file("a"));
  Operation operation({inside.path()}, true);
  CHECK(image_info(inside.file("a"), {}, operation.context).ok());
  CHECK(image_info(outside.file("a"), {}, operation.context).error().code == ErrorCode::kPathRefused);
}

TEST_CASE("I41: a relative backing of a symlinked overlay is looked for beside the name that was given") {
  const TempDir directory, elsewhere;
  touch(directory.file("base"));
  std::filesystem::rename(overlay_naming(directory, "base"), elsewhere.file("overlay.qcow2"));
  std::filesystem::create_symlink(elsewhere.file("overlay.qcow2"), directory.file("link"));
  CHECK_FALSE(chain_error(directory.file("link")).has_value());
  CHECK(chain_error(elsewhere.file("overlay.qcow2")).value().code == ErrorCode::kImageNotFound);
}

}  // namespace sluicebox::image
