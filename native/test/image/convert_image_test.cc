// What a guest reads of the source is what it reads of the target, whatever both are made of.
#include <doctest/doctest.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>

#include "image/ops/convert.h"
#include "test/image/chain_fixture.h"

namespace sluicebox::image {
namespace {

using testing::ChainFixture;
using testing::FaultPlan;
using testing::LayerShape;
using testing::Operation;
using testing::qcow2_layer;
using testing::raw_layer;
using testing::require_ok;
using testing::Surviving;
using testing::TempDir;

const std::vector<std::string> kSourceWrites = {"write -P 0x11 0 192k", "write -P 0x12 700k 3k", "write -z 900k 64k",
                                                "write -P 0x13 1000k 24k"};

std::vector<std::vector<LayerShape>> sources() {
  return {
      {raw_layer((1 << 20) + 512, {"write -P 0x11 0 192k", "write -P 0x12 700k 3k", "write -P 0 300k 100k"})},
      {qcow2_layer(1 << 20, "", kSourceWrites)},
      {qcow2_layer((1 << 20) + 512, "cluster_size=512,compat=0.10", {"write -P 0x11 1k 100k", "write -P 0x12 1M 512"})},
      {raw_layer(600 << 10, {"write -P 0x21 0 600k"}), qcow2_layer(1 << 20, "cluster_size=4096", kSourceWrites)},
      {qcow2_layer(2 << 20, "", {"write -P 0x21 0 2M"}), qcow2_layer(300 << 10, "", {}),
       qcow2_layer(1 << 20, "refcount_bits=1", kSourceWrites)},
  };
}

struct TargetShape {
  const char* what;
  CreateOptions create;
  bool compress = false;
  std::uint64_t sparse = 4096;
};

CreateOptions qcow2_target(Qcow2Create format = {}) { return {.format = format}; }

std::vector<TargetShape> targets() {
  return {
      {"raw", {.format = RawCreate{}}},
      {"raw, coarse holes", {.format = RawCreate{}}, false, 1 << 20},
      {"raw without holes", {.format = RawCreate{}}, false, 0},
      {"raw in a full file", {.format = RawCreate{.preallocation = Preallocation::kFull}}},
      {"qcow2", qcow2_target()},
      {"qcow2 of everything", qcow2_target(), false, 0},
      {"qcow2, coarse holes", qcow2_target({.cluster_size = 4096}), false, 128 << 10},
      {"version 2, 512", qcow2_target({.cluster_size = 512, .version = 2})},
      {"2 MiB clusters", qcow2_target({.cluster_size = 2 << 20})},
      {"one bit", qcow2_target({.cluster_size = 4096, .refcount_bits = 1})},
      {"preallocated", qcow2_target({.preallocation = Preallocation::kMetadata})},
      {"deflate", qcow2_target(), true},
      {"deflate of everything", qcow2_target({.cluster_size = 4096, .refcount_bits = 8}), true, 0},
      {"zstd, 512", qcow2_target({.cluster_size = 512, .zstd = true}), true},
      {"zstd, one bit", qcow2_target({.cluster_size = 4096, .refcount_bits = 1, .zstd = true}), true},
  };
}

DiskFormat format_of(const CreateOptions& create) {
  return std::holds_alternative<RawCreate>(create.format) ? DiskFormat::kRaw : DiskFormat::kQcow2;
}

Result<ImageInfo> convert(const ChainFixture& fixture, const std::string& target, const ConvertOptions& given,
                          FaultPlan* plan = nullptr) {
  Operation operation({"/"});
  if (plan != nullptr) testing::fail_as_planned(operation, *plan);
  ConvertOptions options = given;
  options.source_format = format_from_name(fixture.top_format());
  return convert_image(fixture.top(), target, options, operation.context);
}

void require_same(const std::string& target, DiskFormat format, const std::string& expected, const TempDir& scratch) {
  REQUIRE((testing::guest_bytes(target, format).value() == expected));
  REQUIRE((testing::guest_bytes_by_qemu(target, format_name(format), scratch.file("scratch")) == expected));
  if (format == DiskFormat::kRaw) return;
  Operation operation;
  const CheckReport report = check_image(target, {}, operation.context).value();
  REQUIRE(report.corruptions == 0);
  REQUIRE(report.leaks == 0);
  ChainFixture::must(testing::qemu_img({"check", "-q", target}));
}

std::uint64_t allocated(const std::string& path) {
  struct stat status = {};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  return static_cast<std::uint64_t>(status.st_blocks) * 512;
}

std::size_t files_beside(const std::string& path) {
  const std::filesystem::directory_iterator all(std::filesystem::path(path).parent_path());
  return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

}  // namespace

TEST_CASE("I35: every source converts to every target, which reads the same, and is sound") {
  const TempDir directory;
  for (const auto& layers : sources()) {
    const ChainFixture fixture(layers);
    const std::string expected = fixture.bytes_of_top();
    for (const TargetShape& shape : targets()) {
      CAPTURE(layers.back().options);
      CAPTURE(layers.size());
      CAPTURE(shape.what);
      ConvertOptions options{.target = shape.create};
      options.compress = shape.compress;
      options.sparse_size = shape.sparse;
      options.target.overwrite = true;
      const Result<ImageInfo> made = convert(fixture, directory.file("target"), options);
      require_ok(made);
      CHECK(made.value().virtual_bytes == expected.size());
      require_same(directory.file("target"), format_of(shape.create), expected, directory);
    }
  }
}

TEST_CASE("I35: holes and zeros take no space in the target, unless everything is asked for") {
  const TempDir directory;
  const ChainFixture fixture(
      {raw_layer(64 << 20, {"write -P 0x11 8M 64k", "write -P 0 20M 8M", "write -P 0x12 40M 4k"})});
  const auto size_of = [&](const CreateOptions& create, std::uint64_t sparse) {
    ConvertOptions options{.target = create};
    options.sparse_size = sparse;
    options.target.overwrite = true;
    require_ok(convert(fixture, directory.file("t"), options));
    return allocated(directory.file("t"));
  };
  CHECK(size_of({.format = RawCreate{}}, 4096) <= 80 << 10);
  CHECK(size_of({.format = RawCreate{}}, 1 << 20) <= (2 << 20) + 4096);
  CHECK(size_of({.format = RawCreate{}}, 0) >= 64 << 20);
  CHECK(size_of(qcow2_target(), 4096) <= 600 << 10);
  CHECK(size_of(qcow2_target(), 0) >= 64 << 20);
}

TEST_CASE("I35: the file is the same however many threads read and compress") {
  const TempDir directory;
  std::vector<std::string> writes;
  for (int i = 0; i < 40; ++i) {
    writes.push_back("write -P " + std::to_string(17 + i) + " " + std::to_string(i * 409) + "k " +
                     std::to_string(100 + i * 7) + "k");
  }
  const ChainFixture fixture({qcow2_layer(20 << 20, "", {"write -P 0x21 1M 18M"}), qcow2_layer(20 << 20, "", writes)});
  for (const bool compress : {false, true}) {
    std::string first;
    for (const unsigned parallel : {1u, 2u, 3u, 16u, 0u}) {
      ConvertOptions options{.target = qcow2_target()};
      options.compress = compress;
      options.parallel = parallel;
      options.target.overwrite = true;
      require_ok(convert(fixture, directory.file("t"), options));
      const std::string bytes = testing::slurp(directory.file("t"));
      if (first.empty()) first = bytes;
      CAPTURE(parallel);
      REQUIRE((bytes == first));
    }
  }
}

TEST_CASE("I35: over a backing, only what differs from it is written, and zeros hide what it has") {
  const TempDir directory;
  // Layers 0 and 1 are what the target will stand on as well; what 2 adds, and hides, is its own.
  const ChainFixture fixture(
      {raw_layer(4 << 20, {"write -P 0x11 0 4M"}), qcow2_layer(4 << 20, "", {"write -P 0x12 1M 64k"}),
       qcow2_layer(5 << 20, "", {"write -P 0x21 2M 128k", "write -z 3M 64k", "write -P 0x12 1M 64k"})});
  const std::string expected = fixture.bytes_of_top();
  for (const std::size_t base : {std::size_t{0}, std::size_t{1}}) {
    for (const bool compress : {false, true}) {
      CAPTURE(base);
      ConvertOptions options{.target = qcow2_target()};
      options.target.overwrite = true;
      options.compress = compress;
      options.target.backing =
          BackingOption{.path = fixture.path(base), .format = *format_from_name(fixture.format(base))};
      const Result<ImageInfo> made = convert(fixture, directory.file("t"), options);
      require_ok(made);
      CHECK(made.value().backing->exists);
      require_same(directory.file("t"), DiskFormat::kQcow2, expected, directory);
      CHECK(allocated(directory.file("t")) <= 600 << 10);
    }
  }
}

TEST_CASE("I35: a smaller backing, a larger target and one that is no layer of the source are right too") {
  const TempDir directory;
  const ChainFixture fixture(
      {qcow2_layer(3 << 20, "", {"write -P 0x11 0 1M", "write -z 1M 64k", "write -P 0x12 2M 300k"})});
  const ChainFixture other({raw_layer(5 << 19, {"write -P 0x11 0 512k", "write -P 0x99 1M 1M"})});
  std::string expected = fixture.bytes_of_top();
  expected.resize(10 << 20, '\0');
  for (const unsigned version : {2u, 3u}) {
    ConvertOptions options{.target = qcow2_target({.version = version})};
    options.target.overwrite = true;
    options.target.size = 10 << 20;
    options.target.backing = BackingOption{.path = other.top(), .format = DiskFormat::kRaw};
    require_ok(convert(fixture, directory.file("t"), options));
    require_same(directory.file("t"), DiskFormat::kQcow2, expected, directory);
  }
  ConvertOptions small{.target = qcow2_target()};
  small.target.size = 1 << 20;
  const Result<ImageInfo> cut = convert(fixture, directory.file("small"), small);
  REQUIRE_FALSE(cut.ok());
  CHECK(cut.error().code == ErrorCode::kInvalidArgument);
  CHECK_FALSE(std::filesystem::exists(directory.file("small")));
}

TEST_CASE("an internal snapshot converts as what it kept, by id or by name") {
  const TempDir directory;
  const ChainFixture fixture({raw_layer(1 << 20, {"write -P 0x11 0 1M"}),
                              qcow2_layer(2 << 20, "", {"write -P 0x21 64k 128k", "write -P 0x22 1500k 64k"})});
  const std::string before = fixture.bytes_of_top();
  ChainFixture::must(testing::qemu_img({"snapshot", "-c", "first", fixture.top()}));
  ChainFixture::must(testing::qemu_io(fixture.top(), "qcow2", {"write -P 0x31 0 1M", "write -z 1500k 64k"}));
  ChainFixture::must(testing::qemu_img({"snapshot", "-c", "second", fixture.top()}));
  const std::string between = fixture.bytes_of_top();
  ChainFixture::must(testing::qemu_io(fixture.top(), "qcow2", {"write -P 0x41 0 2M"}));
  const std::string image = testing::slurp(fixture.top());
  const auto kept = [&](const char* snapshot) {
    ConvertOptions options{.target = qcow2_target(), .snapshot = snapshot};
    options.target.overwrite = true;
    return convert(fixture, directory.file("t"), options);
  };
  for (const char* name : {"first", "1"}) {
    require_ok(kept(name));
    require_same(directory.file("t"), DiskFormat::kQcow2, before, directory);
  }
  for (const char* name : {"second", "2"}) {
    require_ok(kept(name));
    require_same(directory.file("t"), DiskFormat::kQcow2, between, directory);
  }
  const Result<ImageInfo> none = kept("third");
  REQUIRE_FALSE(none.ok());
  CHECK(none.error().code == ErrorCode::kInvalidArgument);
  CHECK(none.error().message.find("third") != std::string::npos);
  CHECK((testing::slurp(fixture.top()) == image));
  const ChainFixture flat({raw_layer(1 << 20, {})});
  ConvertOptions options{.target = qcow2_target(), .snapshot = "first"};
  CHECK(convert(flat, directory.file("u"), options).error().code == ErrorCode::kUnsupported);
}

TEST_CASE(
    "I56 I37: with the power cut, or the disk full, at each write in turn there is no target, or the whole of it") {
  const ChainFixture fixture({qcow2_layer(1 << 20, "cluster_size=4096", kSourceWrites)});
  const std::string expected = fixture.bytes_of_top();
  for (const bool replaces : {false, true}) {
    for (const TargetShape& shape : targets()) {
      bool reached = true;
      for (std::uint64_t n = 0; reached; ++n) {
        REQUIRE(n < 4000);
        // Every step of short ones; of those that write cluster by cluster, a part.
        if (n > 40 && n % 13 != 0) continue;
        for (const int fault : {0, 1, 2}) {
          CAPTURE(shape.what);
          CAPTURE(n);
          CAPTURE(fault);
          const TempDir directory;
          const std::string target = directory.file("t");
          if (replaces) ChainFixture::must(testing::qemu_img({"create", "-q", "-f", "raw", target, "64k"}));
          FaultPlan plan{.surviving = Surviving::kTornPart, .seed = static_cast<unsigned>(n) + 3};
          (fault == 0 ? plan.cut_at : fault == 1 ? plan.full_at : plan.sync_fails_at) = n;
          ConvertOptions options{.target = shape.create};
          options.compress = shape.compress;
          options.sparse_size = shape.sparse;
          options.target.overwrite = replaces;
          const Result<ImageInfo> result = convert(fixture, target, options, &plan);
          REQUIRE(result.ok() == !plan.reached);
          reached = plan.reached;
          CHECK(files_beside(target) == (replaces || !reached ? 1 : 0));
          if (result.ok()) {
            require_same(target, format_of(shape.create), expected, directory);
          } else if (replaces) {
            REQUIRE(std::filesystem::file_size(target) == 64 << 10);
          }
        }
        if (n > 4000) break;
      }
    }
  }
}

TEST_CASE("I53: a conversion that is cancelled leaves no target; its progress only grows, up to the whole disk") {
  const TempDir directory;
  const ChainFixture fixture({raw_layer(64 << 20, {"write -P 0x11 0 64M"})});
  for (const bool compress : {false, true}) {
    Operation operation;
    operation.progress.on_report = [&](const ProgressReport& report) {
      if (report.done > 16 << 20) operation.cancel.cancel();
    };
    ConvertOptions options{.target = qcow2_target(), .source_format = DiskFormat::kRaw};
    options.compress = compress;
    const Result<ImageInfo> result = convert_image(fixture.top(), directory.file("t"), options, operation.context);
    REQUIRE_FALSE(result.ok());
    CHECK(result.error().code == ErrorCode::kCancelled);
    CHECK(files_beside(directory.file("t")) == 0);
  }
  Operation operation;
  ConvertOptions options{.target = qcow2_target({.preallocation = Preallocation::kFull}),
                         .source_format = DiskFormat::kRaw};
  require_ok(convert_image(fixture.top(), directory.file("t"), options, operation.context));
  std::uint64_t done = 0;
  for (const ProgressReport& report : operation.progress.reports) {
    CHECK(report.done >= done);
    done = report.done;
  }
  CHECK(done == 64 << 20);
}

TEST_CASE("I48: a source that is damaged ends the conversion with its own error, and leaves no target") {
  const TempDir directory;
  const ChainFixture fixture({qcow2_layer(4 << 20, "", {"write -P 0x11 0 4M"})});
  const std::string packed = directory.file("packed");
  ChainFixture::must(testing::qemu_img({"convert", "-c", "-O", "qcow2", fixture.top(), packed}));
  std::string bytes = testing::slurp(packed);
  const auto entry_at = [&](std::uint64_t offset) { return load_be64(as_bytes(bytes).subspan(offset, 8).data()); };
  const std::uint64_t l2 = entry_at(entry_at(40)) & ((std::uint64_t{1} << 56) - 1);
  const std::uint64_t stream = entry_at(l2 + 8) & ((std::uint64_t{1} << 54) - 1);
  bytes[stream] = '\xff';  // a block of a type that deflate does not have
  std::ofstream(packed, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  Operation operation;
  const Result<ImageInfo> result =
      convert_image(packed, directory.file("t"), {.target = qcow2_target()}, operation.context);
  REQUIRE_FALSE(result.ok());
  CHECK(result.error().code == ErrorCode::kImageCorrupt);
  CHECK_FALSE(std::filesystem::exists(directory.file("t")));
}

}  // namespace sluicebox::image
