#include "box/kernel.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "box/bz_image.h"
#include "box/sealed_memory.h"
#include "test/box/test_kernel.h"

namespace sluicebox::box::test {

namespace {

using image::testing::TempDir;

Buffer bytes_of(const UniqueFd& fd) { return read_whole(fd.get(), std::size_t{1} << 30, "memory", {}).value(); }

Result<UniqueFd> unpack(const TempDir& folder, Bytes image) {
  const std::string path = folder.file("vmlinuz-test");
  write_file(path, image);
  return unpack_kernel({.image_path = path, .modules_path = {}, .release = "test"});
}

void check_corrupt(const TempDir& folder, Bytes image) {
  const auto failed = unpack(folder, image);
  REQUIRE(!failed.ok());
  CHECK(failed.error().code == ErrorCode::kBoxStart);
  CHECK(failed.error().message.starts_with("the kernel of virtual machines is corrupt"));
  CHECK(failed.error().path == folder.file("vmlinuz-test"));
}

TEST_SUITE("kernel") {
  TEST_CASE("the kernel inside the image is unpacked, in blocks, into memory that nobody can change") {
    const TempDir folder;
    // Three blocks of LZ4.
    const Buffer vmlinux = vmlinux_file(18, std::size_t{17} << 20);
    const auto unpacked = unpack(folder, bz_image(lz4_payload(vmlinux)));
    REQUIRE(unpacked.ok());
    CHECK(bytes_of(unpacked.value()) == vmlinux);
    CHECK(kernel_format(unpacked.value().get()).value() == KernelFormat::kVmlinux);
    CHECK(::pwrite(unpacked.value().get(), "x", 1, 0) < 0);
    CHECK(::ftruncate(unpacked.value().get(), 0) < 0);
  }

  TEST_CASE("an image that is packed otherwise, or has no PVH entry, is given as it is") {
    const TempDir folder;
    const Buffer xz{std::byte{0xfd}, std::byte{'7'}, std::byte{'z'}, std::byte{'X'}, std::byte{'Z'},
                    std::byte{0},    std::byte{1},   std::byte{2},   std::byte{3}};
    for (const Buffer& payload : {xz, lz4_payload(vmlinux_file(17)), lz4_payload(Buffer(100))}) {
      const Buffer image = bz_image(payload);
      const auto given = unpack(folder, image);
      REQUIRE(given.ok());
      CHECK(bytes_of(given.value()) == image);
      CHECK(kernel_format(given.value().get()).value() == KernelFormat::kBzImage);
    }
  }

  TEST_CASE("a corrupt image is refused and named") {
    const TempDir folder;
    const Buffer good = bz_image(lz4_payload(vmlinux_file(18, 1000)));
    check_corrupt(folder, {});
    check_corrupt(folder, Bytes(good).first(0x250 - 1));
    check_corrupt(folder, Buffer(4096));
    check_corrupt(folder, Bytes(good).first(good.size() - 11));  // the payload's last byte
    const auto with = [&](std::size_t at, std::uint32_t value) {
      Buffer image = good;
      store_le32(image.data() + at, value);
      return image;
    };
    check_corrupt(folder, with(0x248, 0xffffffff));  // where the payload begins
    check_corrupt(folder, with(0x24c, 0xffffffff));  // how long it is
    check_corrupt(folder, with(0x24c, 7));
    check_corrupt(folder, with(0x204, 0x01ff0000));  // an older protocol
    const std::size_t payload = 3 * 512 + 100;
    check_corrupt(folder, with(payload + 4, 0xfffffff0));  // a block's size
    check_corrupt(folder, with(payload + 4, 0));
    check_corrupt(folder, with(payload + 4, 3));
    const std::size_t size_field = good.size() - 14;
    check_corrupt(folder, with(size_field, 0));
    check_corrupt(folder, with(size_field, 0xffffffff));
    check_corrupt(folder, with(size_field, 100));
    check_corrupt(folder, with(size_field, 100000));
  }

  TEST_CASE("nothing is read or written past an end, whatever the image claims") {
    const Buffer payload = lz4_payload(vmlinux_file(18, 300));
    const std::size_t size = unpacked_size(payload).value();
    for (std::size_t at = 4; at < payload.size() - 4; ++at) {
      for (const auto value : {std::byte{0}, std::byte{0xf0}, std::byte{0xff}}) {
        Buffer hostile = payload;
        hostile[at] = value;
        Buffer to(size);
        if (unpack_lz4(hostile, to).ok()) (void)has_pvh_entry(to);
      }
    }
    const Buffer vmlinux = vmlinux_file();
    for (std::size_t at = 0; at < vmlinux.size(); ++at) {
      Buffer hostile = vmlinux;
      hostile[at] = std::byte{0xff};
      (void)has_pvh_entry(hostile);
      (void)has_pvh_entry(Bytes(vmlinux).first(at));
    }
    CHECK(has_pvh_entry(vmlinux));
  }

  TEST_CASE("the highest version of the first place that has a usable one is found") {
    const TempDir folder;
    const std::string one = folder.file("one");
    const std::string other = folder.file("other");
    const KernelPlace places[] = {{one, one + "/modules", {}}, {other, other + "/modules", "-cloud-amd64"}};
    FakeKernel(other, "9.9.9-generic").usual_modules();
    for (const char* release : {"6.1.0-9-cloud-amd64", "6.1.0-10-cloud-amd64", "5.10.0-30-cloud-amd64"})
      FakeKernel(other, release).usual_modules();
    // Without a driver of ports, and without anything.
    const FakeKernel lacking(other, "7.0.0-cloud-amd64");
    const auto found = find_kernel(places);
    REQUIRE(found.ok());
    CHECK(found.value().release == "6.1.0-10-cloud-amd64");
    CHECK(found.value().image_path == other + "/vmlinuz-6.1.0-10-cloud-amd64");
    CHECK(found.value().modules_path == other + "/modules/6.1.0-10-cloud-amd64");
    FakeKernel(one, "4.0.0").builtin("kernel/drivers/char/virtio_console.ko\n");
    CHECK(find_kernel(places).value().release == "4.0.0");
  }

  TEST_CASE("no kernel is unsupported, and says where it looked and what to install") {
    const TempDir folder;
    const KernelPlace places[] = {{folder.path(), folder.path(), {}}, {folder.path(), folder.path(), "x"}};
    const auto none = find_kernel(places);
    REQUIRE(!none.ok());
    CHECK(none.error().code == ErrorCode::kUnsupported);
    CHECK(none.error().message == "no kernel for virtual machines was found in " + folder.path());
    CHECK(none.error().hint.find("linux-image-cloud-amd64") != std::string::npos);
  }

  TEST_CASE("what is neither form is no kernel") {
    const TempDir folder;
    write_file(folder.file("text"), as_bytes("nothing of the kind"));
    const UniqueFd file(::open(folder.file("text").c_str(), O_RDONLY | O_CLOEXEC));
    CHECK(kernel_format(file.get()).error().code == ErrorCode::kUnsupported);
  }
}

}  // namespace

}  // namespace sluicebox::box::test
