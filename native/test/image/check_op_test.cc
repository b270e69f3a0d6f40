#include <doctest/doctest.h>

#include <fstream>

#include "image/ops/check.h"
#include "image/ops/create.h"
#include "test/image/operation.h"
#include "test/image/qemu.h"
#include "test/image/temp_dir.h"

namespace sluicebox::image {
namespace {

using testing::Operation;
using testing::TempDir;

struct Image {
  TempDir directory;
  std::string path = directory.file("a.qcow2");
  Operation operation;
  Image() {
    if (!create_image(path, {.size = 4 << 20, .format = Qcow2Create{}}, operation.context).ok()) std::abort();
    testing::qemu_io(path, "qcow2", {"write -P 1 0 1M"});
  }
  // One more cluster is counted at the end of the file: a leak.
  void leak() {
    std::string image = testing::slurp(path);
    image.resize((image.size() + 65535) / 65536 * 65536 + 65536);
    const std::size_t index = image.size() / 65536 - 1;
    image[2 * 65536 + index * 2 + 1] = 1;
    std::ofstream(path, std::ios::binary) << image;
  }
};

}  // namespace

TEST_CASE("I36: check without repair writes nothing, and needs no right to write") {
  Image image;
  image.leak();
  const std::string before = testing::slurp(image.path);
  const CheckReport report = check_image(image.path, {}, image.operation.context).value();
  CHECK(report.leaks == 1);
  CHECK(report.corruptions == 0);
  CHECK(report.problems.size() == 1);
  CHECK(testing::slurp(image.path) == before);
  CHECK(testing::qemu_img({"check", image.path}).exit_code == 3);
  const Layer reader = open_layer(image.path, std::nullopt, Access::kRead, image.operation.context).value();
  CHECK(check_image(image.path, {}, image.operation.context).ok());
}

TEST_CASE("I36: a repair of leaks takes the writer's lock, and leaves a clean image with the same bytes") {
  Image image;
  image.leak();
  const std::string before = testing::guest_bytes(image.path, DiskFormat::kQcow2).value();
  {
    const Layer reader = open_layer(image.path, std::nullopt, Access::kRead, image.operation.context).value();
    CHECK(check_image(image.path, {.repair = Repair::kLeaks}, image.operation.context).error().code ==
          ErrorCode::kImageLocked);
  }
  const CheckReport report = check_image(image.path, {.repair = Repair::kLeaks}, image.operation.context).value();
  CHECK(report.leaks_fixed == 1);
  CHECK(testing::qemu_img({"check", image.path}).exit_code == 0);
  CHECK(testing::guest_bytes(image.path, DiskFormat::kQcow2).value() == before);
}

TEST_CASE("I53: a cancelled check says so") {
  const Image image;
  Operation operation;
  operation.cancel.cancel();
  CHECK(check_image(image.path, {}, operation.context).error().code == ErrorCode::kCancelled);
}

}  // namespace sluicebox::image
