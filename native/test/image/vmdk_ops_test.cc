#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "image/ops/check.h"
#include "image/ops/commit.h"
#include "image/ops/create.h"
#include "image/ops/info.h"
#include "image/ops/rebase.h"
#include "test/image/fault_file.h"
#include "test/image/operation.h"
#include "test/image/vmdk_fixture.h"

namespace sluicebox::image {
namespace {

using testing::FaultFile;
using testing::FaultPlan;
using testing::Operation;
using testing::qemu_img;
using testing::qemu_io;
using testing::TempDir;
using vmdk::must;
using vmdk::must_run;
using vmdk::Subformat;

constexpr std::uint64_t kVmdkDisk = 4 << 20;
constexpr std::uint64_t kSplitDisk = (std::uint64_t{2} << 30) + (1 << 20);

CreateOptions vmdk_of(std::optional<std::uint64_t> size, VmdkCreate format = {}) {
  return {.size = size, .overwrite = false, .backing = std::nullopt, .format = format};
}

CreateOptions vmdk_over(const std::string& backing, Subformat subformat = Subformat::kMonolithicSparse) {
  CreateOptions options = vmdk_of(std::nullopt, {.subformat = subformat});
  options.backing = BackingOption{.path = backing, .format = DiskFormat::kVmdk};
  return options;
}

std::vector<std::string> names_in(const TempDir& directory) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(directory.path())) {
    names.push_back(entry.path().filename().string());
  }
  std::ranges::sort(names);
  return names;
}

std::string descriptor_text(const std::string& extents) {
  return "# Disk DescriptorFile\nversion=1\nCID=00000005\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n" +
         extents;
}

ErrorCode info_refusal(const std::string& path, Operation& operation) {
  const auto info = image_info(path, {}, operation.context);
  REQUIRE_FALSE(info.ok());
  CAPTURE(info.error().message);
  CHECK_FALSE(info.error().message.empty());
  return info.error().code;
}

// Base 1 and, over it, an overlay with some of its own, both of this engine.
struct VmdkChain {
  TempDir directory;
  std::string base = directory.file("base.vmdk"), overlay = directory.file("overlay.vmdk");
  explicit VmdkChain(Subformat subformat = Subformat::kMonolithicSparse) {
    Operation operation;
    must(create_image(base, vmdk_of(kVmdkDisk, {.subformat = subformat}), operation.context));
    must_run(qemu_io(base, "vmdk", {"write -P 0x11 0 1M", "write -P 0x12 3M 64k"}));
    must(create_image(overlay, vmdk_over("base.vmdk", subformat), operation.context));
    must_run(qemu_io(overlay, "vmdk", {"write -P 0x31 512k 128k"}));
  }
  std::string bytes(const std::string& path) const {
    return testing::guest_bytes_by_qemu(path, "vmdk", directory.file("raw"));
  }
};

}  // namespace

TEST_CASE("I6, I56: each vmdk subformat is created whole, alone, and as qemu-img sees it") {
  for (const Subformat subformat : vmdk::kSubformats) {
    for (const std::uint64_t size : {kVmdkDisk, kSplitDisk}) {
      CAPTURE(vmdk::subformat_name(subformat));
      CAPTURE(size);
      const TempDir directory;
      const std::string path = directory.file("a.b.vmdk");
      Operation operation;
      const ImageInfo info = must(create_image(path, vmdk_of(size, {.subformat = subformat}), operation.context));
      CHECK(info.virtual_bytes == size);
      CHECK(info.format == DiskFormat::kVmdk);
      const auto seen = qemu_img({"info", path});
      CAPTURE(seen.output);
      CHECK(seen.output.find("(" + std::to_string(size) + " bytes)") != std::string::npos);
      must_run(qemu_img({"check", path}));
      const CheckReport report = must(check_image(path, {}, operation.context));
      CHECK(report.corruptions == 0);
      CHECK(report.leaks == 0);
      const bool two = size > kVmdkDisk;
      std::vector<std::string> names = {"a.b.vmdk"};
      if (subformat == Subformat::kMonolithicFlat) names = {"a.b-flat.vmdk", "a.b.vmdk"};
      if (subformat == Subformat::kTwoGbMaxExtentFlat) names = {"a.b-f001.vmdk", "a.b.vmdk"};
      if (subformat == Subformat::kTwoGbMaxExtentSparse) names = {"a.b-s001.vmdk", "a.b.vmdk"};
      if (two && subformat == Subformat::kTwoGbMaxExtentFlat) names.insert(names.begin() + 1, "a.b-f002.vmdk");
      if (two && subformat == Subformat::kTwoGbMaxExtentSparse) names.insert(names.begin() + 1, "a.b-s002.vmdk");
      CHECK(names_in(directory) == names);
    }
  }
}

TEST_CASE("I13: a part that is there already stops the creation, and nothing is left of it") {
  const TempDir directory;
  vmdk::put(directory.file("a-s002.vmdk"), vmdk::bytes_of("precious"));
  Operation operation;
  CreateOptions options = vmdk_of(kSplitDisk, {.subformat = Subformat::kTwoGbMaxExtentSparse});
  CHECK(create_image(directory.file("a.vmdk"), options, operation.context).error().code == ErrorCode::kImageExists);
  CHECK(names_in(directory) == std::vector<std::string>{"a-s002.vmdk"});
  CHECK(testing::slurp(directory.file("a-s002.vmdk")) == "precious");
  options.overwrite = true;
  must(create_image(directory.file("a.vmdk"), options, operation.context));
  CHECK(names_in(directory) == std::vector<std::string>{"a-s001.vmdk", "a-s002.vmdk", "a.vmdk"});
}

TEST_CASE("I13, I38: a disk that fails at any step of creating a split vmdk leaves the files that were there, only") {
  const std::vector<std::string> old_names = {"a-s001.vmdk", "a-s002.vmdk", "a.vmdk"};
  for (const bool overwrites : {false, true}) {
    for (const bool full : {false, true}) {
      bool reached = true;
      for (std::uint64_t step = 0; reached; ++step) {
        CAPTURE(step);
        const TempDir directory;
        if (overwrites) {
          for (const std::string& name : old_names) vmdk::put(directory.file(name), vmdk::bytes_of("old " + name));
        }
        FaultPlan plan;
        (full ? plan.full_at : plan.sync_fails_at) = step;
        Operation operation;
        operation.context.wrap_file = [&](std::unique_ptr<File> file) -> std::unique_ptr<File> {
          return std::make_unique<FaultFile>(std::move(file), plan);
        };
        CreateOptions options = vmdk_of(kSplitDisk, {.subformat = Subformat::kTwoGbMaxExtentSparse});
        options.overwrite = overwrites;
        const auto made = create_image(directory.file("a.vmdk"), options, operation.context);
        reached = plan.reached;
        CHECK(made.ok() == !reached);
        if (!reached) continue;
        CHECK(names_in(directory) == (overwrites ? old_names : std::vector<std::string>{}));
        for (const std::string& name : names_in(directory)) {
          CHECK(testing::slurp(directory.file(name)) == "old " + name);
        }
      }
    }
  }
}

TEST_CASE("I43: parts of a vmdk outside of its folder, links, protocols and devices are refused and disclose nothing") {
  const TempDir directory;
  const TempDir elsewhere;
  vmdk::put(elsewhere.file("secret"), vmdk::bytes_of(std::string(4096, 's')));
  std::filesystem::create_symlink(elsewhere.file("secret"), directory.file("link"));
  std::filesystem::create_directory(directory.file("folder"));
  REQUIRE(::mkfifo(directory.file("fifo").c_str(), 0600) == 0);
  const std::string path = directory.file("a.vmdk");
  const std::string up = "../" + std::filesystem::path(elsewhere.path()).filename().string() + "/secret";
  const std::vector<std::string> names = {
      elsewhere.file("secret"), up, "link", "/dev/zero", "folder", "fifo", "json:{}", "nbd:h", "file:secret", "../"};
  for (const std::string& name : names) {
    CAPTURE(name);
    vmdk::put(path, vmdk::bytes_of(descriptor_text("RW 8 FLAT \"" + name + "\" 0\n")));
    Operation operation;
    CHECK(info_refusal(path, operation) == ErrorCode::kPathRefused);
    CHECK(open_layer(path, DiskFormat::kVmdk, Access::kWrite, operation.context).error().code ==
          ErrorCode::kPathRefused);
  }
}

TEST_CASE("a vmdk is known by its header or its descriptor; ESX's own kind is refused by name") {
  const TempDir directory;
  Operation operation;
  must(create_image(directory.file("sparse"), vmdk_of(kVmdkDisk), operation.context));
  must(create_image(directory.file("flat"), vmdk_of(kVmdkDisk, {.subformat = Subformat::kMonolithicFlat}),
                    operation.context));
  CHECK(must(image_info(directory.file("sparse"), {}, operation.context)).format == DiskFormat::kVmdk);
  CHECK(must(image_info(directory.file("flat"), {}, operation.context)).format == DiskFormat::kVmdk);
  vmdk::put(directory.file("esx"), vmdk::bytes_of("COWD" + std::string(2044, '\0')));
  const auto refused = image_info(directory.file("esx"), {}, operation.context);
  REQUIRE_FALSE(refused.ok());
  CHECK(refused.error().code == ErrorCode::kUnsupported);
  CHECK(refused.error().message.find("COWD") != std::string::npos);
}

TEST_CASE("I42: a part in the image's own folder, or in an allowed one, is read") {
  const TempDir directory;
  const TempDir elsewhere;
  vmdk::put(elsewhere.file("part"), vmdk::bytes_of(std::string(4096, 's')));
  vmdk::put(directory.file("part"), vmdk::bytes_of(std::string(4096, 'p')));
  const std::string path = directory.file("a.vmdk");
  vmdk::put(path,
            vmdk::bytes_of(descriptor_text("RW 8 FLAT \"part\" 0\nRW 8 FLAT \"" + elsewhere.file("part") + "\" 0\n")));
  Operation closed;
  CHECK(info_refusal(path, closed) == ErrorCode::kPathRefused);
  Operation open({elsewhere.path()});
  CHECK(must(image_info(path, {}, open.context)).virtual_bytes == 8192);
}

TEST_CASE("I39, I40: each file of a vmdk is locked with the image") {
  const TempDir directory;
  const std::string path = directory.file("a.vmdk");
  Operation operation;
  must(create_image(path, vmdk_of(kVmdkDisk, {.subformat = Subformat::kMonolithicFlat}), operation.context));
  {
    const Layer writer = must(open_layer(path, std::nullopt, Access::kWrite, operation.context));
    CHECK(open_layer(directory.file("a-flat.vmdk"), DiskFormat::kRaw, Access::kRead, operation.context).error().code ==
          ErrorCode::kImageLocked);
    CHECK(qemu_io(path, "vmdk", {"read 0 512"}).output.find("lock") != std::string::npos);
    CHECK(open_layer(path, std::nullopt, Access::kShared, operation.context).ok());
  }
  const Layer part =
      must(open_layer(directory.file("a-flat.vmdk"), DiskFormat::kRaw, Access::kWrite, operation.context));
  CHECK(open_layer(path, std::nullopt, Access::kRead, operation.context).error().code == ErrorCode::kImageLocked);
}

TEST_CASE("I50: a parent that was written since is IMAGE_CHAIN when the chain is opened, not when it is read") {
  const VmdkChain chain;
  Operation operation;
  CHECK(must(testing::guest_bytes(chain.overlay, DiskFormat::kVmdk)) == chain.bytes(chain.overlay));
  must_run(qemu_io(chain.base, "vmdk", {"write -P 0x44 2M 64k"}));
  const auto refused = testing::guest_bytes(chain.overlay, DiskFormat::kVmdk);
  REQUIRE_FALSE(refused.ok());
  CHECK(refused.error().code == ErrorCode::kImageChain);
  // The caller who knows better records it anew.
  RebaseOptions again{.backing = "base.vmdk", .backing_format = DiskFormat::kVmdk, .unsafe = true};
  must(rebase_image(chain.overlay, again, operation.context));
  CHECK(must(testing::guest_bytes(chain.overlay, DiskFormat::kVmdk)) == chain.bytes(chain.overlay));
}

TEST_CASE("a vmdk stands on vmdk images only, and flat ones on none") {
  const VmdkChain chain;
  Operation operation;
  must_run(qemu_img({"create", "-q", "-f", "qcow2", chain.directory.file("q"), "4M"}));
  CreateOptions options = vmdk_over("q");
  options.backing->format = DiskFormat::kQcow2;
  CHECK(create_image(chain.directory.file("n"), options, operation.context).error().code == ErrorCode::kUnsupported);
  CHECK(create_image(chain.directory.file("n"), vmdk_over("base.vmdk", Subformat::kMonolithicFlat), operation.context)
            .error()
            .code == ErrorCode::kUnsupported);
  CHECK(rebase_image(chain.overlay, {.backing = "q", .backing_format = DiskFormat::kQcow2}, operation.context)
            .error()
            .code == ErrorCode::kUnsupported);
  CHECK_FALSE(std::filesystem::exists(chain.directory.file("n")));
}

TEST_CASE("I16: a safe rebase of a vmdk leaves what guests read; I17: an unsafe one changes the pointer only") {
  for (const Subformat subformat : {Subformat::kMonolithicSparse, Subformat::kTwoGbMaxExtentSparse}) {
    CAPTURE(vmdk::subformat_name(subformat));
    const VmdkChain chain(subformat);
    Operation operation;
    const std::string before = chain.bytes(chain.overlay);
    const std::string other = chain.directory.file("new.vmdk");
    must(create_image(other, vmdk_of(kVmdkDisk), operation.context));
    must_run(qemu_io(other, "vmdk", {"write -P 0x11 0 256k", "write -P 0x55 2M 1M"}));
    const RebaseResult result = must(rebase_image(chain.overlay, {.backing = "new.vmdk"}, operation.context));
    CHECK(result.backing_format == "vmdk");
    CHECK(result.bytes_copied > 0);
    CHECK(chain.bytes(chain.overlay) == before);
    CHECK(must(testing::guest_bytes(chain.overlay, DiskFormat::kVmdk)) == before);
    CHECK(must(check_image(chain.overlay, {}, operation.context)).corruptions == 0);
    must_run(qemu_img({"check", chain.overlay}));
    // A backing that is not there (yet) keeps the id that is recorded.
    must(rebase_image(chain.overlay, {.backing = "moved.vmdk", .backing_format = DiskFormat::kVmdk, .unsafe = true},
                      operation.context));
    std::filesystem::rename(other, chain.directory.file("moved.vmdk"));
    CHECK(must(testing::guest_bytes(chain.overlay, DiskFormat::kVmdk)) == before);
    // And detached.
    must(rebase_image(chain.overlay, {.backing = ""}, operation.context));
    std::filesystem::remove(chain.directory.file("moved.vmdk"));
    CHECK_FALSE(must(image_info(chain.overlay, {}, operation.context)).backing);
    CHECK(chain.bytes(chain.overlay) == before);
  }
}

TEST_CASE("I33: a vmdk overlay is committed into its backing, and still stands on it") {
  for (const Subformat subformat : {Subformat::kMonolithicSparse, Subformat::kTwoGbMaxExtentSparse}) {
    const VmdkChain chain(subformat);
    Operation operation;
    const std::string before = chain.bytes(chain.overlay);
    CHECK(must(commit_image(chain.overlay, {}, operation.context)).bytes_committed == 128 << 10);
    CHECK(chain.bytes(chain.base) == before);
    CHECK(chain.bytes(chain.overlay) == before);
    CHECK(must(testing::guest_bytes(chain.overlay, DiskFormat::kVmdk)) == before);
    const CheckReport report = must(check_image(chain.overlay, {}, operation.context));
    CHECK(report.allocated_clusters == 0);
    CHECK(report.leaks == 0);
    must_run(qemu_img({"check", chain.base}));
  }
}

TEST_CASE("a commit past a vmdk in between, or of a vmdk of several files that is to go, is refused") {
  const VmdkChain chain(Subformat::kTwoGbMaxExtentSparse);
  Operation operation;
  const std::string top = chain.directory.file("top.vmdk");
  must(create_image(top, vmdk_over("overlay.vmdk"), operation.context));
  CHECK(commit_image(top, {.into = "base.vmdk"}, operation.context).error().code == ErrorCode::kUnsupported);
  CHECK(commit_image(chain.overlay, {.overlay = Committed::kRemoved}, operation.context).error().code ==
        ErrorCode::kUnsupported);
}

TEST_CASE("I37: a power cut at any write of a safe rebase of a vmdk leaves what guests read") {
  const VmdkChain chain;
  const std::string other = chain.directory.file("new.vmdk");
  {
    Operation operation;
    must(create_image(other, vmdk_of(kVmdkDisk), operation.context));
    must_run(qemu_io(other, "vmdk", {"write -P 0x55 2M 1M"}));
  }
  const std::string before = chain.bytes(chain.overlay);
  const auto kept = vmdk::get(chain.overlay);
  for (const testing::Surviving surviving :
       {testing::Surviving::kNone, testing::Surviving::kAll, testing::Surviving::kTornPart}) {
    bool cut = true;
    for (std::uint64_t step = 0; cut; ++step) {
      CAPTURE(step);
      vmdk::put(chain.overlay, kept);
      FaultPlan plan{.cut_at = step, .surviving = surviving, .seed = static_cast<unsigned>(step + 1)};
      {
        Operation operation;
        operation.context.wrap_file = [&](std::unique_ptr<File> file) -> std::unique_ptr<File> {
          return std::make_unique<FaultFile>(std::move(file), plan);
        };
        const auto outcome = rebase_image(chain.overlay, {.backing = "new.vmdk"}, operation.context);
        CHECK(outcome.ok() != plan.cut);
      }
      cut = plan.cut;
      Operation operation;
      CHECK(must(testing::guest_bytes(chain.overlay, DiskFormat::kVmdk)) == before);
      CHECK(must(check_image(chain.overlay, {}, operation.context)).corruptions == 0);
    }
  }
}

}  // namespace sluicebox::image
