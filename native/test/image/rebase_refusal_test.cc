#include <doctest/doctest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <utility>

#include "image/ops/check.h"
#include "test/image/rebase_fixture.h"

namespace sluicebox::image {
namespace {

using testing::Operation;
using testing::RebaseFixture;
using testing::RebaseShape;

// A refused rebase writes nothing at all, and its dry run is refused with the same code and writes nothing either.
Error refused(const RebaseFixture& fixture, RebaseOptions options, std::string path = {}) {
  if (path.empty()) path = fixture.overlay;
  const auto look = [&] {
    return std::pair(testing::slurp(path), std::filesystem::last_write_time(path).time_since_epoch().count());
  };
  const auto before = look();
  const auto attempt = [&](bool dry_run) {
    options.dry_run = dry_run;
    Operation operation;
    const Result<RebaseResult> result = rebase_image(path, options, operation.context);
    REQUIRE_FALSE(result.ok());
    CHECK(look() == before);
    return result.error();
  };
  const Error dry = attempt(true);
  Error real = attempt(false);
  CHECK(dry.code == real.code);
  return real;
}

// Changes bytes of a file in place, as QEMU or a hostile writer might.
void put(const std::string& path, std::uint64_t offset, const std::string& bytes) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(static_cast<std::streamoff>(offset));
  file << bytes;
  REQUIRE(file.good());
}
std::uint64_t get64(const std::string& path, std::uint64_t offset) {
  const std::string image = testing::slurp(path);
  return load_be64(Bytes(as_bytes(image)).data() + offset);
}

// A chain of `images` qcow2 files named PREFIX0 (the base) to PREFIXn; the last one's path.
std::string make_chain(const RebaseFixture& fixture, const std::string& prefix, int images) {
  std::string path = fixture.directory.file(prefix + "0");
  fixture.must(testing::qemu_img({"create", "-q", "-f", "qcow2", path, "1M"}));
  for (int i = 1; i < images; ++i) {
    path = fixture.directory.file(prefix + std::to_string(i));
    fixture.must(testing::qemu_img(
        {"create", "-q", "-u", "-f", "qcow2", "-b", prefix + std::to_string(i - 1), "-F", "qcow2", path, "1M"}));
  }
  return path;
}

}  // namespace

TEST_CASE("I21: a missing backing is not found before any write, and so is a missing overlay") {
  const RebaseFixture fixture({});
  CHECK(refused(fixture, {.backing = "none", .backing_format = DiskFormat::kRaw}).code == ErrorCode::kImageNotFound);
  Operation operation;
  CHECK(rebase_image(fixture.directory.file("no"), fixture.onto_new(), operation.context).error().code ==
        ErrorCode::kImageNotFound);
}

TEST_CASE("I21: a missing old backing is not found, and the hint names the mode that does not need it") {
  const RebaseFixture fixture({});
  std::filesystem::remove(fixture.old_base);
  const Error error = refused(fixture, fixture.onto_new());
  CHECK(error.code == ErrorCode::kImageNotFound);
  CHECK(error.hint.find("unsafe") != std::string::npos);
}

TEST_CASE("I22: a backing path that is too long, or does not fit the header cluster, is refused before any write") {
  for (const char* cluster : {"cluster_size=512", "cluster_size=65536"}) {
    RebaseShape shape;
    shape.options = cluster;
    const RebaseFixture fixture(shape);
    const std::string slashes = "./" + std::string(1024 - 5, '/') + "new";
    REQUIRE(slashes.size() == 1024);
    for (const bool unsafe : {false, true}) {
      CHECK(refused(fixture, {.backing = slashes, .backing_format = DiskFormat::kQcow2, .unsafe = unsafe}).code ==
            ErrorCode::kInvalidArgument);
    }
  }
}

TEST_CASE("I22: the longest path is stored, and a shorter one leaves nothing of it behind") {
  const RebaseFixture fixture({});
  const std::string longest = "./" + std::string(1023 - 5, '/') + "new";
  REQUIRE(longest.size() == 1023);
  const std::string before = fixture.bytes(fixture.overlay);
  for (const std::string& backing : {longest, std::string("new")}) {
    Operation operation;
    REQUIRE(rebase_image(fixture.overlay, {.backing = backing, .backing_format = DiskFormat::kQcow2}, operation.context)
                .ok());
    CHECK(fixture.bytes(fixture.overlay) == before);
  }
  CHECK(testing::slurp(fixture.overlay).substr(0, 65536).find("////") == std::string::npos);
}

TEST_CASE("I25: a chain of 16 images, overlay included, works for old and new; 17 is refused before any write") {
  const RebaseFixture fixture({});
  const std::string fifteen = make_chain(fixture, "a", 15);
  const std::string overlay = make_chain(fixture, "b", 16);  // over 15
  const std::string before = fixture.bytes(overlay);
  Operation operation;
  REQUIRE(rebase_image(overlay, {.backing = fifteen, .backing_format = DiskFormat::kQcow2}, operation.context).ok());
  CHECK(fixture.bytes(overlay) == before);
  const std::string sixteen = make_chain(fixture, "c", 16);
  CHECK(refused(fixture, {.backing = sixteen, .backing_format = DiskFormat::kQcow2}, overlay).code ==
        ErrorCode::kImageChain);
  const std::string seventeen = make_chain(fixture, "d", 17);
  CHECK(refused(fixture, {.backing = "new", .backing_format = DiskFormat::kQcow2}, seventeen).code ==
        ErrorCode::kImageChain);
}

TEST_CASE("I26: a cycle is found by device and inode, also through a symlink and a hard link") {
  const RebaseFixture fixture({});
  std::filesystem::create_symlink(fixture.overlay, fixture.directory.file("symlink"));
  std::filesystem::create_hard_link(fixture.overlay, fixture.directory.file("hardlink"));
  for (const char* self : {"overlay.qcow2", "symlink", "hardlink"}) {
    CAPTURE(self);
    for (const bool unsafe : {false, true}) {
      CHECK(refused(fixture, {.backing = self, .backing_format = DiskFormat::kQcow2, .unsafe = unsafe}).code ==
            ErrorCode::kImageChain);
    }
  }
}

TEST_CASE("I26: an overlay onto its own descendant is refused") {
  const RebaseFixture fixture({});
  for (const auto& [name, backing] : {std::pair{"child", "overlay.qcow2"}, std::pair{"grandchild", "child"}}) {
    fixture.must(testing::qemu_img(
        {"create", "-q", "-f", "qcow2", "-b", backing, "-F", "qcow2", fixture.directory.file(name), "4M"}));
    CHECK(refused(fixture, {.backing = name, .backing_format = DiskFormat::kQcow2}).code == ErrorCode::kImageChain);
  }
}

TEST_CASE("I26: a loop below the new backing ends") {
  const RebaseFixture fixture({});
  make_chain(fixture, "x", 3);
  fixture.must(
      testing::qemu_img({"rebase", "-u", "-f", "qcow2", "-b", "x2", "-F", "qcow2", fixture.directory.file("x0")}));
  CHECK(refused(fixture, {.backing = "x2", .backing_format = DiskFormat::kQcow2}).code == ErrorCode::kImageChain);
}

TEST_CASE("I14: the format of a new backing is given or read from its header; raw is never guessed") {
  const RebaseFixture fixture({});
  const Error error = refused(fixture, {.backing = "old"});
  CHECK(error.code == ErrorCode::kInvalidArgument);
  CHECK(error.message.find("backingFormat") != std::string::npos);
  Operation operation;
  CHECK(rebase_image(fixture.overlay, {.backing = "new"}, operation.context).value().backing_format == "qcow2");
}

TEST_CASE("I14: what an image names is never probed: without a recorded format the chain is refused") {
  const RebaseFixture fixture({});
  std::string head = testing::slurp(fixture.overlay);
  // The extension of type 0xE2792ACA becomes one that nobody knows.
  const std::size_t at = head.find("\xe2\x79\x2a\xca");
  REQUIRE(at != std::string::npos);
  head[at] = '\x12';
  std::ofstream(fixture.overlay, std::ios::binary) << head;
  const Error error = refused(fixture, fixture.onto_new());
  CHECK(error.code == ErrorCode::kImageChain);
  CHECK(error.hint.find("backingFormat") != std::string::npos);
}

TEST_CASE("I28 I30: raw overlays and internal snapshots are unsupported, with hints that work") {
  const RebaseFixture fixture({});
  const Error raw = refused(fixture, {.backing = "new", .backing_format = DiskFormat::kQcow2}, fixture.old_base);
  CHECK(raw.code == ErrorCode::kUnsupported);
  CHECK(raw.hint.find("unsafe") == std::string::npos);
  fixture.must(testing::qemu_img({"snapshot", "-c", "one", fixture.overlay}));
  const Error snapshots = refused(fixture, fixture.onto_new());
  CHECK(snapshots.code == ErrorCode::kUnsupported);
  CHECK(snapshots.message.find("snapshots") != std::string::npos);
  CHECK(refused(fixture, {}).code == ErrorCode::kUnsupported);
}

TEST_CASE("I27: backing files keep bytes and mtime") {
  const RebaseFixture fixture({});
  const auto look = [](const std::string& path) {
    return std::pair(testing::slurp(path), std::filesystem::last_write_time(path).time_since_epoch().count());
  };
  const auto old_before = look(fixture.old_base), new_before = look(fixture.new_base);
  for (const std::string& path : {fixture.old_base, fixture.new_base}) ::chmod(path.c_str(), 0444);
  Operation operation;
  REQUIRE(rebase_image(fixture.overlay, fixture.onto_new(), operation.context).ok());
  CHECK(look(fixture.old_base) == old_before);
  CHECK(look(fixture.new_base) == new_before);
}

TEST_CASE("I20: a relative backing is resolved against the overlay's directory, not the working one") {
  RebaseFixture fixture({});
  std::filesystem::create_directory(fixture.directory.file("sub"));
  std::filesystem::rename(fixture.new_base, fixture.directory.file("sub/new"));
  const std::string before = fixture.bytes(fixture.overlay);
  Operation operation;
  const RebaseResult result =
      rebase_image(fixture.overlay, {.backing = "sub/../sub/new", .backing_format = DiskFormat::kQcow2},
                   operation.context)
          .value();
  CHECK(result.to == "sub/../sub/new");
  CHECK(fixture.bytes(fixture.overlay) == before);
}

TEST_CASE("I41: an old backing elsewhere is refused, unless the caller names that very file in the same call") {
  const RebaseFixture fixture({});
  const testing::TempDir elsewhere;
  std::filesystem::rename(fixture.old_base, elsewhere.file("old"));
  const std::string old_path = elsewhere.file("old");
  fixture.must(testing::qemu_img({"rebase", "-u", "-f", "qcow2", "-b", old_path, "-F", "raw", fixture.overlay}));
  const Error error = refused(fixture, fixture.onto_new());
  CHECK(error.code == ErrorCode::kPathRefused);
  CHECK(error.hint.find("allowPaths") != std::string::npos);
  Operation operation;
  CHECK(
      rebase_image(fixture.overlay, {.backing = old_path, .backing_format = DiskFormat::kRaw}, operation.context).ok());
  Operation allowed({elsewhere.path()});
  CHECK(rebase_image(fixture.overlay, fixture.onto_new(), allowed.context).ok());
}

TEST_CASE("I42: a protocol or JSON as a new backing is an invalid argument in both modes") {
  const RebaseFixture fixture({});
  for (const char* backing : {"json:{}", "nbd://localhost/x", "file:new"}) {
    for (const bool unsafe : {false, true}) {
      CHECK(refused(fixture, {.backing = backing, .backing_format = DiskFormat::kQcow2, .unsafe = unsafe}).code ==
            ErrorCode::kInvalidArgument);
    }
  }
}

TEST_CASE("I39: an overlay or a base that somebody writes is locked, also for unsafe") {
  const RebaseFixture fixture({});
  for (const std::string& path : {fixture.overlay, fixture.new_base}) {
    Operation holder;
    const Layer held = open_layer(path, DiskFormat::kQcow2, Access::kWrite, holder.context).value();
    CHECK(refused(fixture, fixture.onto_new()).code == ErrorCode::kImageLocked);
    RebaseOptions unsafe = fixture.onto_new();
    unsafe.unsafe = true;
    if (path == fixture.overlay) CHECK(refused(fixture, unsafe).code == ErrorCode::kImageLocked);
  }
  Operation holder;
  const Layer reader = open_layer(fixture.new_base, DiskFormat::kQcow2, Access::kRead, holder.context).value();
  Operation operation;
  CHECK(rebase_image(fixture.overlay, fixture.onto_new(), operation.context).ok());
}

TEST_CASE("I29: a dry run that is refused leaves the overlay as it is, whatever the refusal") {
  const RebaseFixture fixture({});
  put(fixture.overlay, 79, std::string(1, '\x02'));  // marked corrupt
  CHECK(refused(fixture, fixture.onto_new()).code == ErrorCode::kImageCorrupt);
  put(fixture.overlay, 79, std::string(1, '\0'));
  put(fixture.new_base, 0, "XYZ");
  CHECK(refused(fixture, fixture.onto_new()).code == ErrorCode::kImageFormat);
  CHECK(refused(fixture, {.backing = "old"}).code == ErrorCode::kInvalidArgument);
  CHECK(refused(fixture, {.backing = "none", .backing_format = DiskFormat::kRaw}).code == ErrorCode::kImageNotFound);
}

TEST_CASE("I32: an overlay with the dirty bit and damage beyond its counts is refused, and keeps every byte") {
  const RebaseFixture fixture({});
  const std::uint64_t l2 = get64(fixture.overlay, get64(fixture.overlay, 40)) & 0x00fffffffffffe00;
  const std::uint64_t block = get64(fixture.overlay, get64(fixture.overlay, 48));
  put(fixture.overlay, 79, std::string(1, '\x01'));                           // not closed cleanly
  put(fixture.overlay, block, std::string(16, '\0'));                         // counts that a repair would raise
  put(fixture.overlay, l2 + 8 * 60, std::string("\x80\0\0\0\x40\0\0\0", 8));  // a cluster past the end of the file
  const std::string before = testing::slurp(fixture.overlay);
  for (const bool unsafe : {false, true}) {
    CAPTURE(unsafe);
    RebaseOptions options = fixture.onto_new();
    options.unsafe = unsafe;
    Operation operation;
    const Result<RebaseResult> result = rebase_image(fixture.overlay, options, operation.context);
    REQUIRE_FALSE(result.ok());
    CHECK(result.error().code == ErrorCode::kImageCorrupt);
    CHECK(testing::slurp(fixture.overlay) == before);
  }
  // Without that one entry the same image is repaired and moved.
  put(fixture.overlay, l2 + 8 * 60, std::string(8, '\0'));
  const std::string guest = fixture.bytes(fixture.overlay);
  Operation operation;
  REQUIRE(rebase_image(fixture.overlay, fixture.onto_new(), operation.context).ok());
  CHECK(testing::qemu_img({"check", fixture.overlay}).exit_code == 0);
  CHECK(fixture.bytes(fixture.overlay) == guest);
}

TEST_CASE(
    "I39: what changed between the opening of a file and its lock is seen: the header counts as it is when locked") {
  const RebaseFixture fixture({});
  const std::string copy = fixture.directory.file("copy");
  std::filesystem::copy_file(fixture.old_base, copy);
  const std::string guest = fixture.bytes(fixture.overlay);
  const auto meanwhile = [&](const std::function<void()>& change) {
    auto operation = std::make_unique<Operation>();
    operation->context.before_lock = [change, done = false]() mutable {
      if (!std::exchange(done, true)) change();
    };
    return operation;
  };
  const auto other_backing = meanwhile([&] {
    fixture.must(testing::qemu_img({"rebase", "-u", "-f", "qcow2", "-b", "copy", "-F", "raw", fixture.overlay}));
  });
  // Were the old header believed, "old" would be compared, which shows other bytes by now.
  std::filesystem::resize_file(fixture.old_base, 0);
  const Result<RebaseResult> moved = rebase_image(fixture.overlay, fixture.onto_new(), other_backing->context);
  REQUIRE(moved.ok());
  CHECK(moved.value().from == "copy");
  CHECK(fixture.bytes(fixture.overlay) == guest);

  const auto marked = meanwhile([&] { put(fixture.overlay, 79, std::string(1, '\x02')); });
  CHECK(rebase_image(fixture.overlay, {}, marked->context).error().code == ErrorCode::kImageCorrupt);
  put(fixture.overlay, 79, std::string(1, '\0'));

  std::unique_ptr<Layer> writer;
  Operation holder;
  const auto held = meanwhile([&] {
    writer = std::make_unique<Layer>(
        open_layer(fixture.overlay, DiskFormat::kQcow2, Access::kWrite, holder.context).value());
  });
  CHECK(rebase_image(fixture.overlay, {}, held->context).error().code == ErrorCode::kImageLocked);
  writer.reset();

  const auto replaced = meanwhile([&] {
    std::filesystem::copy_file(fixture.overlay, fixture.directory.file("next"));
    std::filesystem::rename(fixture.directory.file("next"), fixture.overlay);
  });
  CHECK(rebase_image(fixture.overlay, {}, replaced->context).error().code == ErrorCode::kImageLocked);
  CHECK(fixture.bytes(fixture.overlay) == guest);
}

TEST_CASE("I53: a cancel while a chain is being opened is heard before the next file") {
  const RebaseFixture fixture({});
  const std::string fifteen = make_chain(fixture, "a", 15);
  const std::string before = testing::slurp(fixture.overlay);
  for (int at = 1; at <= 16; ++at) {
    CAPTURE(at);
    Operation operation;
    int opened = 0;
    operation.context.before_lock = [&] {
      if (++opened == at) CHECK(operation.cancel.cancel());
    };
    const RebaseOptions options{.backing = fifteen, .backing_format = DiskFormat::kQcow2};
    CHECK(rebase_image(fixture.overlay, options, operation.context).error().code == ErrorCode::kCancelled);
    CHECK(opened == at);
    CHECK(operation.context.metadata->taken() == 0);
  }
  CHECK(testing::slurp(fixture.overlay) == before);
}

TEST_CASE("I53: cancelled while it compares, a rebase leaves the old chain and its bytes") {
  RebaseShape shape;
  shape.options = "cluster_size=512";
  const RebaseFixture fixture(shape);
  const std::string before = fixture.bytes(fixture.overlay);
  for (const char* phase : {"plan", "compare", "copy"}) {
    CAPTURE(phase);
    Operation operation;
    operation.progress.on_report = [&](const ProgressReport& report) {
      if (std::string(report.phase) == phase) CHECK(operation.cancel.cancel());
    };
    CHECK(rebase_image(fixture.overlay, fixture.onto_new(), operation.context).error().code == ErrorCode::kCancelled);
    CHECK(fixture.bytes(fixture.overlay) == before);
    CHECK(testing::qemu_img({"check", fixture.overlay}).exit_code == 0);
  }
  Operation operation;
  operation.progress.on_report = [&](const ProgressReport& report) {
    if (std::string(report.phase) == "header") CHECK_FALSE(operation.cancel.cancel());
  };
  CHECK(rebase_image(fixture.overlay, fixture.onto_new(), operation.context).ok());
}

}  // namespace sluicebox::image
