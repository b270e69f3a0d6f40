#include <doctest/doctest.h>

#include <chrono>
#include <filesystem>
#include <fstream>

#include "image/ops/create.h"
#include "image/ops/info.h"
#include "test/image/operation.h"
#include "test/image/qemu.h"
#include "test/image/temp_dir.h"

namespace sluicebox::image {
namespace {

using testing::Operation;
using testing::TempDir;

std::string value_text(const SpecificValue& value) {
  if (const auto* flag = std::get_if<bool>(&value.value)) return *flag ? "true" : "false";
  if (const auto* number = std::get_if<std::uint64_t>(&value.value)) return std::to_string(*number);
  return std::get<std::string>(value.value);
}

std::optional<std::string> specific(const ImageInfo& info, const std::string& name) {
  for (const SpecificValue& value : info.layer.specific) {
    if (value.name == name) return value_text(value);
  }
  return std::nullopt;
}

}  // namespace

TEST_CASE("I54: info reads a shared image that a writer holds, and is refused without `shared`") {
  const TempDir directory;
  const std::string path = directory.file("a.qcow2");
  Operation operation;
  REQUIRE(create_image(path, {.size = 1 << 20, .format = Qcow2Create{}}, operation.context).ok());
  const Layer writer = open_layer(path, std::nullopt, Access::kWrite, operation.context).value();
  CHECK(image_info(path, {}, operation.context).error().code == ErrorCode::kImageLocked);
  CHECK(image_info(path, {.shared = true}, operation.context).value().virtual_bytes == 1 << 20);
  CHECK(image_info(path, {.chain = true, .shared = true}, operation.context).ok());
}

TEST_CASE("info opens neither the backing nor a data file, writes nothing and changes no time") {
  const TempDir directory;
  const std::string path = directory.file("a.qcow2");
  REQUIRE(testing::qemu_img({"create", "-q", "-f", "qcow2", "-u", "-b", "none", "-F", "qcow2", path, "1M"}).exit_code ==
          0);
  const std::string before = testing::slurp(path);
  const auto time = std::filesystem::last_write_time(path).time_since_epoch().count();
  Operation operation;
  const ImageInfo info = image_info(path, {}, operation.context).value();
  CHECK(info.backing->path == "none");
  CHECK(info.backing->resolved_path == directory.file("none"));
  CHECK(info.backing->format == "qcow2");
  CHECK_FALSE(info.backing->exists);
  CHECK(testing::slurp(path) == before);
  CHECK(std::filesystem::last_write_time(path).time_since_epoch().count() == time);
  CHECK(image_info(path, {.chain = true}, operation.context).error().code == ErrorCode::kImageNotFound);
}

TEST_CASE("I51: what cannot be read is still reported by info") {
  const TempDir directory;
  const auto made = [&](const std::string& name, std::vector<std::string> options) {
    std::vector<std::string> words = {"create", "-q", "-f", "qcow2"};
    words.insert(words.end(), options.begin(), options.end());
    const std::string path = directory.file(name);
    words.insert(words.end(), {path, "1M"});
    const testing::RunResult outcome = testing::qemu_img(words);
    INFO(outcome.output);
    REQUIRE(outcome.exit_code == 0);
    return path;
  };
  Operation operation;
  const ImageInfo zstd = image_info(made("z", {"-o", "compression_type=zstd"}), {}, operation.context).value();
  CHECK(specific(zstd, "compression-type") == "zstd");
  const std::string data_file = directory.file("data");
  const ImageInfo external = image_info(made("d", {"-o", "data_file=" + data_file}), {}, operation.context).value();
  CHECK(specific(external, "data-file") == data_file);
  std::filesystem::remove(data_file);
  CHECK(image_info(directory.file("d"), {}, operation.context).ok());
  // Marked by hand: qemu-img would time its key derivation first, and gives up where the machine is too fast or too
  // busy for that.
  std::fstream(made("c", {}), std::ios::in | std::ios::out | std::ios::binary).seekp(35).put(1);
  const ImageInfo encrypted = image_info(directory.file("c"), {}, operation.context).value();
  CHECK(encrypted.layer.encrypted);
  for (const char* name : {"d", "c"}) {
    CAPTURE(name);
    const Result<std::string> read = testing::guest_bytes(directory.file(name), DiskFormat::kQcow2);
    CHECK(read.error().code == ErrorCode::kUnsupported);
  }
}

TEST_CASE("info with the chain tells every layer, this image first") {
  const TempDir directory;
  Operation operation;
  REQUIRE(create_image(directory.file("base"), {.size = 2 << 20, .format = RawCreate{}}, operation.context).ok());
  std::string below = "base";
  DiskFormat format = DiskFormat::kRaw;
  for (const char* name : {"one", "two"}) {
    CreateOptions options{.format = Qcow2Create{}};
    options.backing = BackingOption{.path = below, .format = format};
    REQUIRE(create_image(directory.file(name), options, operation.context).ok());
    below = name;
    format = DiskFormat::kQcow2;
  }
  const ImageInfo info = image_info(directory.file("two"), {.chain = true}, operation.context).value();
  REQUIRE(info.chain.size() == 3);
  CHECK(info.chain[0].path == directory.file("two"));
  CHECK(info.chain[1].path == directory.file("one"));
  CHECK(info.chain[2].path == directory.file("base"));
  CHECK(info.chain[2].format == DiskFormat::kRaw);
  CHECK(info.chain[1].backing->exists);
  CHECK(image_info(directory.file("two"), {}, operation.context).value().chain.empty());
}

TEST_CASE("I45: info of a huge image, and of one that claims huge tables, ends at once") {
  const TempDir directory;
  const std::string path = directory.file("a.qcow2");
  Operation operation;
  REQUIRE(create_image(path, {.size = std::uint64_t{1} << 46, .format = Qcow2Create{.cluster_size = 2 << 20}},
                       operation.context)
              .ok());
  const auto begin = std::chrono::steady_clock::now();
  CHECK(image_info(path, {}, operation.context).ok());
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(30));
}

}  // namespace sluicebox::image
