// What a path leads to may change at any moment: what was opened decides.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "image/open_file.h"
#include "image/ops/info.h"
#include "image/ops/rebase.h"
#include "test/image/operation.h"
#include "test/image/qemu.h"
#include "test/image/temp_dir.h"

namespace sluicebox::image {
namespace {

using testing::Operation;
using testing::TempDir;

void fill(const std::string& path, char byte) { std::ofstream(path) << std::string(1 << 16, byte); }

void make_overlay(const std::string& path, const std::string& backing) {
  const testing::RunResult made =
      testing::qemu_img({"create", "-q", "-u", "-f", "qcow2", "-b", backing, "-F", "raw", path, "64k"});
  INFO(made.output);
  REQUIRE(made.exit_code == 0);
}

std::optional<ErrorCode> chain_code(const std::string& path, Operation& operation) {
  const Result<ImageInfo> info = image_info(path, {.chain = true}, operation.context);
  if (info.ok()) return std::nullopt;
  return info.error().code;
}

}  // namespace

TEST_CASE("I41: a relative backing is read from the directory that the image was opened in, whatever takes its name") {
  const TempDir root;
  std::filesystem::create_directory(root.file("mine"));
  std::filesystem::create_directory(root.file("other"));
  fill(root.file("mine/base"), 'm');
  fill(root.file("other/base"), 's');
  make_overlay(root.file("mine/overlay"), "base");
  Operation operation;
  operation.context.wrap_file = [&](std::unique_ptr<File> file) {
    REQUIRE(::renameat2(AT_FDCWD, root.file("mine").c_str(), AT_FDCWD, root.file("other").c_str(), RENAME_EXCHANGE) ==
            0);
    return file;
  };
  RebaseOptions detach;
  detach.backing = "";
  REQUIRE(rebase_image(root.file("mine/overlay"), detach, operation.context).ok());
  CHECK(testing::guest_bytes(root.file("other/overlay"), DiskFormat::kQcow2).value() == std::string(1 << 16, 'm'));
}

TEST_CASE("I41: an absolute backing inside a directory that took the name of the image's own is refused") {
  const TempDir root;
  std::filesystem::create_directory(root.file("mine"));
  std::filesystem::create_directory(root.file("other"));
  fill(root.file("mine/base"), 'm');
  fill(root.file("other/base"), 's');
  make_overlay(root.file("mine/overlay"), root.file("mine/base"));
  Operation operation;
  operation.context.wrap_file = [&](std::unique_ptr<File> file) {
    std::filesystem::rename(root.file("mine"), root.file("moved"));
    std::filesystem::rename(root.file("other"), root.file("mine"));
    return file;
  };
  RebaseOptions detach;
  detach.backing = "";
  const auto outcome = rebase_image(root.file("mine/overlay"), detach, operation.context);
  REQUIRE_FALSE(outcome.ok());
  CHECK(outcome.error().code == ErrorCode::kPathRefused);
}

TEST_CASE("I41: where callers are restricted, an image's own directory adds nothing to the allowed ones") {
  const TempDir allowed, elsewhere;
  fill(elsewhere.file("other"), 's');
  fill(allowed.file("other"), 'a');
  make_overlay(allowed.file("image"), "other");
  std::filesystem::create_symlink(allowed.file("image"), elsewhere.file("link"));
  Operation restricted({allowed.path()}, true);
  CHECK(chain_code(elsewhere.file("link"), restricted) == ErrorCode::kPathRefused);
  CHECK(chain_code(allowed.file("image"), restricted) == std::nullopt);
  Operation free;
  CHECK(chain_code(elsewhere.file("link"), free) == std::nullopt);
}

TEST_CASE("I41: a path that an image names outside of the allowed directories is refused, be something there or not") {
  const TempDir directory, elsewhere;
  fill(elsewhere.file("there"), 's');
  std::filesystem::create_directory(elsewhere.file("folder"));
  fill(elsewhere.file("folder/there"), 's');
  std::filesystem::create_symlink(elsewhere.file("there"), directory.file("to-there"));
  std::filesystem::create_symlink(elsewhere.file("nothing"), directory.file("to-nothing"));
  std::filesystem::create_symlink(elsewhere.path(), directory.file("out"));
  const std::string up = "../" + std::filesystem::path(elsewhere.path()).filename().string();
  for (const std::string& backing :
       {elsewhere.file("there"), elsewhere.file("nothing"), elsewhere.file("folder/there"), elsewhere.file("no/thing"),
        up + "/there", up + "/nothing", up + "-nowhere/nothing", std::string("to-there"), std::string("to-nothing"),
        std::string("out/there"), std::string("out/nothing"), std::string("to-nothing/nothing")}) {
    CAPTURE(backing);
    make_overlay(directory.file("overlay"), backing);
    Operation operation;
    CHECK(chain_code(directory.file("overlay"), operation) == ErrorCode::kPathRefused);
  }
  for (const char* backing : {"nothing", "no/thing"}) {
    CAPTURE(backing);
    make_overlay(directory.file("overlay"), backing);
    Operation operation;
    CHECK(chain_code(directory.file("overlay"), operation) == ErrorCode::kImageNotFound);
  }
}

}  // namespace sluicebox::image
