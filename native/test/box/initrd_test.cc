#include "box/initrd.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "box/cpio.h"
#include "box/sealed_memory.h"
#include "test/box/test_kernel.h"

namespace sluicebox::box::test {

namespace {

using image::testing::TempDir;

UniqueFd file_of(const std::string& path, std::string_view text) {
  write_file(path, as_bytes(text));
  return UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
}
Buffer all_of(const UniqueFd& fd) { return read_whole(fd.get(), std::size_t{1} << 30, "memory", {}).value(); }

const CpioEntry& entry(const std::vector<CpioEntry>& entries, std::string_view name) {
  const auto found = std::find_if(entries.begin(), entries.end(), [&](const auto& one) { return one.name == name; });
  REQUIRE_MESSAGE(found != entries.end(), name);
  return *found;
}

TEST_SUITE("initrd") {
  TEST_CASE("an archive holds what was put in, each with an inode of its own, aligned") {
    Cpio archive;
    archive.directory("d", 0755);
    archive.character_device("d/console", 0600, 5, 1);
    for (std::size_t size = 0; size < 6; ++size)
      archive.file("d/" + std::string(size + 1, 'f'), 0640, as_bytes(std::string(size, 'x')));
    const auto entries = read_cpio(archive.take());
    REQUIRE(entries.size() == 8);
    CHECK(entries[0].mode == (S_IFDIR | 0755));
    CHECK(entries[1].mode == (S_IFCHR | 0600));
    CHECK(entries[1].device == 5 * 256 + 1);
    for (std::size_t size = 0; size < 6; ++size) {
      CHECK(entries[2 + size].name == "d/" + std::string(size + 1, 'f'));
      CHECK(entries[2 + size].bytes == std::string(size, 'x'));
      CHECK(entries[2 + size].mode == (S_IFREG | 0640));
      CHECK(entries[2 + size].inode == entries[1 + size].inode + 1);
    }
  }

  TEST_CASE("it holds the agent, a console, and the modules that a machine needs in their order") {
    const TempDir folder;
    const FakeKernel kernel(folder.path());
    kernel.usual_modules();
    const UniqueFd agent = file_of(folder.file("agent"), "the agent");
    const auto initrd = build_initrd(kernel.files, agent.get());
    REQUIRE(initrd.ok());
    CHECK(::pwrite(initrd.value().get(), "x", 1, 0) < 0);
    const auto entries = read_cpio(all_of(initrd.value()));
    CHECK(entry(entries, "init").bytes == "the agent");
    CHECK(entry(entries, "init").mode == (S_IFREG | 0700));
    CHECK(entry(entries, "dev/console").device == 5 * 256 + 1);
    CHECK(entry(entries, "modules/order").bytes ==
          "virtio_ring.ko\nvirtio_pci_modern_dev.ko\nvirtio.ko\nvirtio_pci.ko\nvirtio_console.ko\nvirtio_blk.ko\n"
          "virtio-rng.ko\nvirtio_balloon.ko\nlibcrc32c.ko\nerofs.ko\noverlay.ko\n");
    CHECK(entry(entries, "modules/virtio-rng.ko").bytes.starts_with("\177ELF"));
    CHECK(std::none_of(entries.begin(), entries.end(), [](const auto& one) { return one.name == "modules/tun.ko"; }));
    // A directory comes before what is in it.
    CHECK(entry(entries, "modules").inode < entry(entries, "modules/order").inode);
    CHECK(all_of(build_initrd(kernel.files, agent.get()).value()) == all_of(initrd.value()));
  }

  TEST_CASE("without the driver of the disk there is none") {
    const TempDir folder;
    const FakeKernel kernel(folder.path());
    kernel.usual_modules();
    std::filesystem::remove(kernel.files.modules_path + "/kernel/drivers/block/virtio_blk.ko");
    const UniqueFd agent = file_of(folder.file("agent"), "the agent");
    const auto failed = build_initrd(kernel.files, agent.get());
    REQUIRE(!failed.ok());
    CHECK(failed.error().code == ErrorCode::kUnsupported);
    CHECK(failed.error().message.ends_with("virtio_blk"));
  }

  TEST_CASE("of the kernel that is installed here: unpacked, with every driver") {
    const auto kernel = find_kernel(std::filesystem::path(SLUICEBOX_AGENT).parent_path());
    if (!kernel.ok()) {
      MESSAGE("skipped, this host lacks: ", kernel.error().message);
      return;
    }
    const auto image = unpack_kernel(kernel.value());
    REQUIRE(image.ok());
    CHECK(kernel_format(image.value().get()).ok());
    const UniqueFd agent(::open(SLUICEBOX_AGENT, O_RDONLY | O_CLOEXEC));
    const auto initrd = build_initrd(kernel.value(), agent.get());
    REQUIRE_MESSAGE(initrd.ok(), initrd.error().message);
    const std::string order = entry(read_cpio(all_of(initrd.value())), "modules/order").bytes;
    std::size_t last = 0;
    for (const char* name : {"virtio_ring.ko\n", "virtio.ko\n", "virtio_pci.ko\n", "virtio_console.ko\n"}) {
      const std::size_t at = order.find(name);
      REQUIRE_MESSAGE(at != std::string::npos, order);
      CHECK(at >= last);
      last = at;
    }
  }
}

}  // namespace

}  // namespace sluicebox::box::test
