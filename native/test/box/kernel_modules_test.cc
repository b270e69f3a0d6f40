#include "box/kernel_modules.h"

#include <algorithm>

#include "test/box/test_kernel.h"

namespace sluicebox::box::test {

namespace {

using image::testing::TempDir;

std::vector<std::string> names(const std::vector<KernelModule>& modules) {
  std::vector<std::string> result;
  for (const KernelModule& module : modules) result.push_back(module.file_name);
  return result;
}

TEST_SUITE("kernel modules") {
  TEST_CASE("a module's needs are read from its .modinfo") {
    CHECK(module_needs(module_needing("virtio,virtio-ring")).value() ==
          std::vector<std::string>{"virtio", "virtio_ring"});
    CHECK(module_needs(module_needing("")).value().empty());
    CHECK(module_needs(module_file("")).value().empty());
    // Without a zero byte at its end.
    CHECK(module_needs(module_file("depends=last")).value() == std::vector<std::string>{"last"});
  }

  TEST_CASE("each comes after what it needs, once, whatever order was asked for") {
    const TempDir folder;
    const FakeKernel kernel(folder.path());
    kernel.usual_modules();
    const ModuleWanted wanted[] = {{"virtio_console", true}, {"virtio_pci", true}, {"virtio_rng", true}};
    const auto order = ModuleTree(kernel.files.modules_path).load(wanted);
    REQUIRE(order.ok());
    CHECK(names(order.value()) == std::vector<std::string>{"virtio_ring.ko", "virtio.ko", "virtio_console.ko",
                                                           "virtio_pci_modern_dev.ko", "virtio_pci.ko",
                                                           "virtio-rng.ko"});
  }

  TEST_CASE("what is built into the kernel is left out, as itself and as a need") {
    const TempDir folder;
    const FakeKernel kernel(folder.path());
    kernel.module("fs/ext4/ext4.ko", "jbd2,crc16");
    kernel.module("lib/crc16.ko");
    kernel.builtin("kernel/fs/jbd2/jbd2.ko\nkernel/drivers/char/hw_random/virtio-rng.ko\n");
    const ModuleTree tree(kernel.files.modules_path);
    CHECK(tree.is_builtin("virtio_rng"));
    const ModuleWanted wanted[] = {{"virtio_rng", true}, {"ext4", true}};
    CHECK(names(tree.load(wanted).value()) == std::vector<std::string>{"crc16.ko", "ext4.ko"});
  }

  TEST_CASE("a missing one is named if it is required or needed, and left out if it is neither") {
    const TempDir folder;
    const FakeKernel kernel(folder.path());
    kernel.module("a.ko", "b");
    const ModuleTree tree(kernel.files.modules_path);
    const ModuleWanted optional[] = {{"c", false}};
    CHECK(tree.load(optional).value().empty());
    for (const ModuleWanted& wanted : {ModuleWanted{"c", true}, ModuleWanted{"a", false}}) {
      const auto failed = tree.load(std::span(&wanted, 1));
      REQUIRE(!failed.ok());
      CHECK(failed.error().code == ErrorCode::kUnsupported);
      CHECK(failed.error().message.ends_with(wanted.required ? " c" : " b"));
      CHECK(failed.error().path == kernel.files.modules_path);
    }
  }

  TEST_CASE("a compressed one is unsupported, by its name") {
    const TempDir folder;
    const FakeKernel kernel(folder.path());
    for (const char* ending : {".xz", ".zst", ".gz"}) {
      const std::string name = std::string("packed_") + (ending + 1);
      kernel.module(name + ".ko" + ending);
      const ModuleWanted wanted{name, true};
      const auto failed = ModuleTree(kernel.files.modules_path).load(std::span(&wanted, 1));
      REQUIRE(!failed.ok());
      CHECK(failed.error().code == ErrorCode::kUnsupported);
      CHECK(failed.error().path.ends_with(name + ".ko" + ending));
    }
  }

  TEST_CASE("modules that need each other end") {
    const TempDir folder;
    const FakeKernel kernel(folder.path());
    kernel.module("a.ko", "b");
    kernel.module("b.ko", "a");
    const ModuleWanted wanted{"a", true};
    CHECK(ModuleTree(kernel.files.modules_path).load(std::span(&wanted, 1)).value().size() == 2);
  }

  TEST_CASE("a directory that is not there has no modules") {
    CHECK(!ModuleTree("/nonexistent/modules").has("virtio"));
  }

  TEST_CASE("nothing is read past the end of a file, however it is cut or whatever it claims") {
    const Buffer whole = module_needing("virtio,virtio_ring");
    for (std::size_t size = 0; size < whole.size(); ++size) {
      const Buffer part(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
      CHECK(!module_needs(part).ok());  // the table of sections comes last
    }
    for (std::size_t at = 0; at < whole.size(); ++at) {
      for (const auto value : {std::byte{0}, std::byte{0x7f}, std::byte{0xff}}) {
        Buffer hostile = whole;
        hostile[at] = value;
        // Any answer will do.
        (void)module_needs(hostile);
      }
    }
  }
}

}  // namespace

}  // namespace sluicebox::box::test
