#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>

#include "image/ops/check.h"
#include "test/image/rebase_fixture.h"
#include "test/image/thoroughness.h"

namespace sluicebox::image {
namespace {

using testing::Operation;
using testing::RebaseFixture;
using testing::RebaseShape;

Result<RebaseResult> rebase(const std::string& path, const RebaseOptions& options) {
  Operation operation;
  return rebase_image(path, options, operation.context);
}

std::string backing_of(const std::string& path) {
  Operation operation;
  const Layer layer = open_layer(path, std::nullopt, Access::kRead, operation.context).value();
  const auto backing = layer.block->backing();
  return backing ? backing->path + ":" + backing->format.value_or("") : "none";
}

// After our rebase and after qemu-img's, a guest must read what it read before; both images must be clean.
void compare_with_qemu(const RebaseFixture& fixture, const RebaseOptions& options) {
  const std::string before = fixture.bytes(fixture.overlay);
  const std::string theirs = fixture.copy_of_overlay("theirs.qcow2");
  const bool detach = !options.backing || options.backing->empty();
  std::vector<std::string> arguments = {"rebase", "-f", "qcow2", "-b", detach ? "" : *options.backing};
  if (!detach) arguments.insert(arguments.end(), {"-F", format_name(*options.backing_format)});
  arguments.push_back(theirs);
  fixture.must(testing::qemu_img(arguments));

  const Result<RebaseResult> result = rebase(fixture.overlay, options);
  INFO((result.ok() ? "" : result.error().message));
  REQUIRE(result.ok());
  CHECK(fixture.bytes(fixture.overlay) == before);
  CHECK(fixture.bytes(theirs) == before);
  CHECK(testing::guest_bytes(fixture.overlay, DiskFormat::kQcow2).value() == before);
  const testing::RunResult checked = testing::qemu_img({"check", fixture.overlay});
  INFO(checked.output);
  CHECK(checked.exit_code == 0);
}

std::vector<RebaseShape> all_shapes() {
  std::vector<RebaseShape> shapes;
  for (const char* cluster : {"512", "4096", "65536", "2097152"}) {
    RebaseShape shape;
    shape.options = std::string("cluster_size=") + cluster;
    shapes.push_back(shape);
    shape.options += ",compat=0.10";
    shapes.push_back(shape);
  }
  for (const char* cluster : {"16384", "65536"}) {
    RebaseShape shape;
    shape.options = std::string("extended_l2=on,cluster_size=") + cluster;
    shape.overlay_writes.insert(shape.overlay_writes.end(),
                                {"write -P 0x33 1026k 3k", "write -z 1040k 6k", "write -P 0x34 2052k 2k"});
    shapes.push_back(shape);
  }
  for (const char* bits : {"1", "2", "4", "8", "16", "32", "64"}) {
    RebaseShape shape;
    shape.options = std::string("cluster_size=4096,refcount_bits=") + bits;
    shapes.push_back(shape);
  }
  unsigned sizes = 0;
  for (const std::uint64_t old_size : {std::uint64_t{512}, std::uint64_t{1572864 + 1024}, std::uint64_t{6} << 20}) {
    for (const std::uint64_t new_size : {std::uint64_t{512}, std::uint64_t{1310720 + 512}, std::uint64_t{6} << 20}) {
      for (const char* compat : {"0.10", "1.1"}) {
        if (!testing::is_thorough() && sizes++ % 2 != 0) continue;
        RebaseShape shape;
        shape.options = std::string("compat=") + compat;
        shape.old_size = old_size;
        shape.new_size = new_size;
        shape.old_writes = {"write -P 0x11 0 512", "write -P 0x11 0 1500k", "write -P 0x13 5M 1M"};
        shape.new_writes = {"write -P 0x21 0 512", "write -P 0x22 1M 200k", "write -P 0x23 2M 4M"};
        shapes.push_back(shape);
      }
    }
  }
  RebaseShape odd_end;
  odd_end.size = (4u << 20) - 512 * 3;
  shapes.push_back(odd_end);
  RebaseShape lazy;
  lazy.options = "lazy_refcounts=on";
  shapes.push_back(lazy);
  RebaseShape small_cluster_base;
  small_cluster_base.options = "cluster_size=2M";
  small_cluster_base.old_format = "qcow2";
  shapes.push_back(small_cluster_base);
  return shapes;
}

}  // namespace

TEST_CASE("I16 I23: a safe rebase changes no byte that a guest sees, whatever clusters, widths and sizes") {
  for (const RebaseShape& shape : all_shapes()) {
    CAPTURE(shape.options);
    CAPTURE(shape.old_size);
    CAPTURE(shape.new_size);
    const RebaseFixture fixture(shape);
    compare_with_qemu(fixture, fixture.onto_new());
    CHECK(backing_of(fixture.overlay) == "new:" + shape.new_format);
  }
}

TEST_CASE("I18: detaching copies in all that came from the chain, and clears the reference") {
  for (const char* none : {"", "absent"}) {
    for (const char* options : {"compat=1.1", "compat=0.10,cluster_size=512"}) {
      RebaseShape shape;
      shape.options = options;
      const RebaseFixture fixture(shape);
      RebaseOptions detach;
      if (*none == '\0') detach.backing = "";
      compare_with_qemu(fixture, detach);
      CHECK(backing_of(fixture.overlay) == "none");
      CHECK(testing::slurp(fixture.overlay).find("old") == std::string::npos);
    }
  }
}

TEST_CASE("I16: compressed clusters of overlay and bases read the same after a safe rebase") {
  const RebaseFixture fixture({});
  const std::string packed = fixture.directory.file("packed");
  fixture.must(testing::qemu_img({"convert", "-c", "-f", "raw", "-O", "qcow2", fixture.old_base, packed}));
  fixture.must(testing::qemu_img({"rebase", "-u", "-f", "qcow2", "-b", "packed", "-F", "qcow2", fixture.overlay}));
  testing::qemu_io(fixture.overlay, "qcow2", {"write -c -P 0x55 256k 64k"});
  compare_with_qemu(fixture, fixture.onto_new());
}

TEST_CASE("I16: an overlay without a backing is masked against the new one") {
  const RebaseFixture fixture({});
  fixture.must(testing::qemu_img({"rebase", "-u", "-f", "qcow2", "-b", "", fixture.overlay}));
  compare_with_qemu(fixture, fixture.onto_new());
}

TEST_CASE("I16: random writes at three layers keep their bytes through a chain of rebases") {
  for (const char* cluster : {"512", "4096", "65536"}) {
    unsigned random = 12345;
    const auto next = [&random](unsigned below) {
      random = random * 1103515245u + 12345u;
      return (random >> 8) % below;
    };
    RebaseShape shape;
    shape.options = std::string("cluster_size=") + cluster;
    for (auto* writes : {&shape.old_writes, &shape.new_writes, &shape.overlay_writes}) {
      for (int i = 0; i < 12; ++i) {
        const unsigned at = next(8000) * 512, length = (1 + next(180)) * 512;
        const char* kind = next(4) == 0 ? "-z" : "-P 0x";
        writes->push_back(std::string("write ") + kind + (kind[1] == 'z' ? "" : std::to_string(10 + next(3))) + " " +
                          std::to_string(at) + " " + std::to_string(length));
      }
    }
    const RebaseFixture fixture(shape);
    compare_with_qemu(fixture, fixture.onto_new());
    RebaseOptions back;
    back.backing = "old";
    back.backing_format = DiskFormat::kRaw;
    compare_with_qemu(fixture, back);
    compare_with_qemu(fixture, {});
  }
}

TEST_CASE("I24: with nothing to copy the pointer is still rewritten, and copied is 0") {
  RebaseShape shape;
  shape.new_writes = shape.old_writes;
  const RebaseFixture fixture(shape);
  const RebaseResult result = rebase(fixture.overlay, fixture.onto_new()).value();
  CHECK(result.clusters_copied == 0);
  CHECK(result.bytes_copied == 0);
  CHECK(result.from == "old");
  CHECK(result.to == "new");
  CHECK(result.backing_format == "qcow2");
  CHECK(backing_of(fixture.overlay) == "new:qcow2");
}

TEST_CASE("I17: an unsafe rebase changes the pointer only, and needs no file behind it") {
  const RebaseFixture fixture({});
  const std::string before = testing::slurp(fixture.overlay);
  RebaseOptions options{.backing = "not/there.raw", .backing_format = DiskFormat::kRaw, .unsafe = true};
  REQUIRE(rebase(fixture.overlay, options).ok());
  const std::string after = testing::slurp(fixture.overlay);
  CHECK(backing_of(fixture.overlay) == "not/there.raw:raw");
  REQUIRE(after.size() == before.size());
  CHECK(after.substr(65536) == before.substr(65536));
  options.backing_format.reset();
  CHECK(rebase(fixture.overlay, options).error().code == ErrorCode::kInvalidArgument);
  REQUIRE(rebase(fixture.overlay, {.backing = "", .unsafe = true}).ok());
  CHECK(backing_of(fixture.overlay) == "none");
}

TEST_CASE("I29: a dry run writes nothing and counts what the real run counts") {
  for (const char* options : {"cluster_size=512", "cluster_size=65536", "compat=0.10"}) {
    RebaseShape shape;
    shape.options = options;
    const RebaseFixture fixture(shape);
    const std::string before = testing::slurp(fixture.overlay);
    RebaseOptions dry = fixture.onto_new();
    dry.dry_run = true;
    const RebaseResult told = rebase(fixture.overlay, dry).value();
    CHECK(testing::slurp(fixture.overlay) == before);
    const RebaseResult real = rebase(fixture.overlay, fixture.onto_new()).value();
    CHECK(told.clusters_compared == real.clusters_compared);
    CHECK(told.clusters_copied == real.clusters_copied);
    CHECK(told.bytes_copied == real.bytes_copied);
    CHECK(real.clusters_copied > 0);
    CHECK(told.backing_format == real.backing_format);
  }
}

TEST_CASE("chains that share a tail are compared only above it, and the answer is the same") {
  const RebaseFixture fixture({});
  // old <- middle <- overlay2, and overlay2 moves from middle to old.
  const std::string middle = fixture.directory.file("middle");
  const std::string top = fixture.directory.file("top");
  for (const auto& [path, backing, format] : {std::tuple{middle, "old", "raw"}, std::tuple{top, "middle", "qcow2"}}) {
    fixture.must(testing::qemu_img({"create", "-q", "-f", "qcow2", "-b", backing, "-F", format, path, "4M"}));
  }
  fixture.must(testing::qemu_io(middle, "qcow2", {"write -P 0x77 1M 64k"}));
  const std::string before = fixture.bytes(top);
  const RebaseResult result = rebase(top, {.backing = "old", .backing_format = DiskFormat::kRaw}).value();
  CHECK(result.clusters_compared == 1);
  CHECK(result.clusters_copied == 1);
  CHECK(fixture.bytes(top) == before);
}

TEST_CASE("I16 I52: tens of thousands of ranges are compared and copied as few are") {
  RebaseShape shape;
  shape.options = "cluster_size=512";
  shape.size = shape.old_size = 20 << 20;
  const RebaseFixture fixture(shape);
  // Every other sector of the old base has data.
  std::string bytes(20 << 20, '\0');
  for (std::size_t at = 0; at < bytes.size(); at += 1024)
    bytes.replace(at, 512, 512, static_cast<char>(1 + at / 1024 % 250));
  const std::string raw = fixture.directory.file("raw");
  std::ofstream(raw, std::ios::binary) << bytes;
  std::filesystem::remove(fixture.old_base);
  fixture.must(testing::qemu_img(
      {"convert", "-f", "raw", "-O", "qcow2", "-S", "512", "-o", "cluster_size=512", raw, fixture.old_base}));
  fixture.must(testing::qemu_img({"rebase", "-u", "-f", "qcow2", "-b", "old", "-F", "qcow2", fixture.overlay}));
  compare_with_qemu(fixture, fixture.onto_new());
}

TEST_CASE("chains that meet below both are compared where either shows its own layer") {
  const RebaseFixture fixture({});
  const auto overlay_on = [&](const char* name, const char* backing, const char* format, const char* write) {
    const std::string path = fixture.directory.file(name);
    fixture.must(testing::qemu_img({"create", "-q", "-f", "qcow2", "-b", backing, "-F", format, path, "4M"}));
    fixture.must(testing::qemu_io(path, "qcow2", {write}));
    return path;
  };
  overlay_on("left", "old", "raw", "write -P 0x41 1M 64k");
  overlay_on("right", "old", "raw", "write -z 0 128k");
  const std::string top = overlay_on("top", "left", "qcow2", "write -P 0x43 2M 64k");
  const std::string before = fixture.bytes(top);
  const RebaseResult result = rebase(top, {.backing = "right", .backing_format = DiskFormat::kQcow2}).value();
  CHECK(result.clusters_compared == 3);
  CHECK(result.clusters_copied == 3);
  CHECK(fixture.bytes(top) == before);
  // A shorter layer hides the tail behind zeros, so there the two sides differ although neither has a cluster.
  const std::string small = fixture.directory.file("small");
  fixture.must(testing::qemu_img({"create", "-q", "-f", "qcow2", "-b", "old", "-F", "raw", small, "3M"}));
  REQUIRE(rebase(top, {.backing = "small", .backing_format = DiskFormat::kQcow2}).ok());
  CHECK(fixture.bytes(top) == before);
  REQUIRE(rebase(top, {.backing = "old", .backing_format = DiskFormat::kRaw}).ok());
  CHECK(fixture.bytes(top) == before);
}

TEST_CASE("Q17: progress counts bytes, never backwards and never past its total, whatever the phase") {
  const RebaseFixture fixture({});
  Operation operation;
  REQUIRE(rebase_image(fixture.overlay, fixture.onto_new(), operation.context).ok());
  std::vector<std::string> phases;
  std::uint64_t done = 0;
  for (const ProgressReport& report : operation.progress.reports) {
    if (phases.empty() || phases.back() != report.phase) phases.emplace_back(report.phase);
    CHECK(report.unit == ProgressUnit::kBytes);
    CHECK(report.done >= done);
    CHECK(report.total.has_value() == (phases.back() != "plan"));
    CHECK(report.done <= report.total.value_or(0));
    done = report.done;
  }
  CHECK(phases == std::vector<std::string>{"plan", "compare", "copy", "header"});
}

}  // namespace sluicebox::image
