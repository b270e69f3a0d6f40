// What a guest reads of the source is what it reads of the target, whatever both are made of.
#include <doctest/doctest.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>

#include "image/ops/convert.h"
#include "test/image/chain_fixture.h"
#include "test/image/thoroughness.h"

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

Result<Converted> convert(const ChainFixture& fixture, const std::string& target, const ConvertOptions& given,
                          FaultPlan* plan = nullptr) {
  Operation operation({"/"});
  if (plan != nullptr) testing::fail_as_planned(operation, *plan);
  ConvertOptions options = given;
  options.source_format = format_from_name(fixture.top_format());
  return convert_image({fixture.top()}, target, options, operation.context);
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
      std::get<CreateOptions>(options.target).overwrite = true;
      const Result<Converted> made = convert(fixture, directory.file("target"), options);
      require_ok(made);
      CHECK(made.value().target.virtual_bytes == expected.size());
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
    std::get<CreateOptions>(options.target).overwrite = true;
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
    writes.push_back("write -P " + std::to_string(17 + i) + " " + std::to_string(i * 204) + "k " +
                     std::to_string(50 + i * 3) + "k");
  }
  const ChainFixture fixture({qcow2_layer(10 << 20, "", {"write -P 0x21 1M 8M"}), qcow2_layer(10 << 20, "", writes)});
  for (const bool compress : {false, true}) {
    std::string first;
    for (const unsigned parallel : {1u, 2u, 3u, 16u, 0u}) {
      ConvertOptions options{.target = qcow2_target()};
      options.compress = compress;
      options.parallel = parallel;
      std::get<CreateOptions>(options.target).overwrite = true;
      require_ok(convert(fixture, directory.file("t"), options));
      const std::string bytes = testing::slurp(directory.file("t"));
      if (first.empty()) first = bytes;
      CAPTURE(parallel);
      REQUIRE((bytes == first));
    }
  }
}

TEST_CASE("I35: several sources are joined, each whole with what it stands on, to where the next begins") {
  const TempDir directory;
  // Ends within a cluster and a grain of any target; nothing at all; longer than what it stands on.
  const ChainFixture first({raw_layer((1 << 20) + 512, {"write -P 0x11 0 192k", "write -P 0x12 1M 512"})});
  const ChainFixture empty({raw_layer(0, {})});
  const ChainFixture last({raw_layer(300 << 10, {"write -P 0x21 0 300k"}), qcow2_layer(1 << 20, "", {})});
  const std::string expected = first.bytes_of_top() + last.bytes_of_top();
  for (const TargetShape& shape : targets()) {
    CAPTURE(shape.what);
    ConvertOptions options{.target = shape.create, .compress = shape.compress, .sparse_size = shape.sparse};
    std::get<CreateOptions>(options.target).overwrite = true;
    Operation operation({"/"});
    require_ok(convert_image({first.top(), empty.top(), last.top()}, directory.file("t"), options, operation.context));
    require_same(directory.file("t"), format_of(shape.create), expected, directory);
  }
}

TEST_CASE("I53: a cancel is heard between the sources, and no further one is opened") {
  const TempDir directory;
  const ChainFixture source({raw_layer(1 << 20, {})});
  Operation operation({"/"});
  int opened = 0;
  operation.context.before_lock = [&] {
    ++opened;
    operation.cancel.cancel();
  };
  const std::vector<std::string> sources(5, source.top());
  const ConvertOptions options{.target = CreateOptions{.format = RawCreate{}}};
  const Result<Converted> result = convert_image(sources, directory.file("t"), options, operation.context);
  REQUIRE_FALSE(result.ok());
  CHECK(result.error().code == ErrorCode::kCancelled);
  CHECK(opened == 1);
  CHECK_FALSE(std::filesystem::exists(directory.file("t")));
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
      std::get<CreateOptions>(options.target).overwrite = true;
      options.compress = compress;
      std::get<CreateOptions>(options.target).backing =
          BackingOption{.path = fixture.path(base), .format = *format_from_name(fixture.format(base))};
      const Result<Converted> made = convert(fixture, directory.file("t"), options);
      require_ok(made);
      CHECK(made.value().target.backing->exists);
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
    std::get<CreateOptions>(options.target).overwrite = true;
    std::get<CreateOptions>(options.target).size = 10 << 20;
    std::get<CreateOptions>(options.target).backing = BackingOption{.path = other.top(), .format = DiskFormat::kRaw};
    require_ok(convert(fixture, directory.file("t"), options));
    require_same(directory.file("t"), DiskFormat::kQcow2, expected, directory);
  }
  ConvertOptions small{.target = qcow2_target()};
  std::get<CreateOptions>(small.target).size = 1 << 20;
  const Result<Converted> cut = convert(fixture, directory.file("small"), small);
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
    std::get<CreateOptions>(options.target).overwrite = true;
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
  const Result<Converted> none = kept("third");
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
        if (n > 40 && n % (testing::is_thorough() ? 13 : 31) != 0) continue;
        for (const int fault : {0, 1, 2}) {
          CAPTURE(shape.what);
          CAPTURE(n);
          CAPTURE(fault);
          const TempDir directory;
          const std::string target = directory.file("t");
          if (replaces) {
            std::ofstream{target};
            std::filesystem::resize_file(target, 64 << 10);
          }
          FaultPlan plan{.surviving = Surviving::kTornPart, .seed = static_cast<unsigned>(n) + 3};
          (fault == 0 ? plan.cut_at : fault == 1 ? plan.full_at : plan.sync_fails_at) = n;
          ConvertOptions options{.target = shape.create};
          options.compress = shape.compress;
          options.sparse_size = shape.sparse;
          std::get<CreateOptions>(options.target).overwrite = replaces;
          const Result<Converted> result = convert(fixture, target, options, &plan);
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

namespace {

// Every byte of a disk larger than each of the sources, so that nothing of it passes for one of theirs.
constexpr std::uint64_t kThereBytes = 3 << 20;
const std::vector<std::string> kThereWrites = {"write -P 0x77 0 3M"};

struct ThereShape {
  const char* what;
  std::vector<LayerShape> layers;
};

std::vector<ThereShape> images_there() {
  return {
      {"raw", {raw_layer(kThereBytes, kThereWrites)}},
      {"qcow2", {qcow2_layer(kThereBytes, "", kThereWrites)}},
      {"qcow2 of 2 MiB clusters", {qcow2_layer(kThereBytes, "cluster_size=2M", kThereWrites)}},
      {"qcow2 with a snapshot", {qcow2_layer(kThereBytes, "cluster_size=4096", {kThereWrites[0], testing::kSnapshot})}},
      {"an overlay", {qcow2_layer(kThereBytes, "", kThereWrites), qcow2_layer(kThereBytes, "", {"write -z 1M 64k"})}},
      {"version 2", {raw_layer(kThereBytes, kThereWrites), qcow2_layer(kThereBytes, "compat=0.10", {})}},
      {"vmdk", {{.format = "vmdk", .options = "", .size = kThereBytes, .writes = kThereWrites}}},
      {"vpc", {{.format = "vpc", .options = "force_size=on", .size = kThereBytes, .writes = kThereWrites}}},
      {"vhdx", {{.format = "vhdx", .options = "block_size=1M", .size = kThereBytes, .writes = kThereWrites}}},
  };
}

Result<Converted> convert_into(const ChainFixture& source, const ChainFixture& there, Operation& operation,
                               std::uint64_t sparse = 4096) {
  ConvertOptions options{.target = ConvertInto{.format = format_from_name(there.top_format())}};
  options.source_format = format_from_name(source.top_format());
  options.sparse_size = sparse;
  return convert_image({source.top()}, there.top(), options, operation.context);
}

std::string written_over(const std::string& there, const std::string& source) {
  return source + there.substr(source.size());
}

}  // namespace

TEST_CASE("I35: an image that is there reads as the source, and behind that as before, and is sound") {
  std::vector<std::unique_ptr<ChainFixture>> all;
  for (const auto& layers : sources()) all.push_back(std::make_unique<ChainFixture>(layers));
  for (const ThereShape& shape : images_there()) {
    ChainFixture there(shape.layers);
    there.keep();
    const std::string before = there.bytes_of_top();
    std::size_t n = 0;
    for (const auto& source : all) {
      constexpr std::uint64_t kSparse[] = {4096, 0, 1 << 20};
      const std::uint64_t sparse = kSparse[n++ % 3];
      CAPTURE(shape.what);
      CAPTURE(n);
      CAPTURE(sparse);
      there.restore();
      Operation operation({"/"});
      const Result<Converted> made = convert_into(*source, there, operation, sparse);
      require_ok(made);
      CHECK(made.value().target.virtual_bytes == before.size());
      REQUIRE((there.bytes_of_top() == written_over(before, source->bytes_of_top())));
      // qemu-img has no check for a vpc.
      there.require_sound(there.size() - 1, false, there.top_format() != "vpc");
    }
  }
}

TEST_CASE("I35: into an image that reads as zeros nothing is written for zeros") {
  const ChainFixture source({raw_layer(2 << 20, {"write -P 0x11 1M 64k"})});
  for (const bool told : {false, true}) {
    CAPTURE(told);
    // As long as it is, without a hole: what is written does not show in its size, but in what it holds.
    const ChainFixture there({raw_layer(
        kThereBytes, told ? std::vector<std::string>{"write -P 0x77 64k 64k"} : std::vector<std::string>{})});
    Operation operation;
    const ConvertOptions options{.target = ConvertInto{.format = DiskFormat::kRaw, .is_zero = told},
                                 .source_format = DiskFormat::kRaw};
    require_ok(convert_image({source.top()}, there.top(), options, operation.context));
    const std::string now = there.bytes_of_top();
    CHECK(now[1 << 20] == 0x11);
    // Who says so without its being so sees that nothing was done there.
    CHECK(now[64 << 10] == (told ? 0x77 : 0));
    if (!told) CHECK(allocated(there.top()) <= 128 << 10);
  }
}

TEST_CASE(
    "I37: with the power cut, or the disk full, at each write in turn an image that is written over stays sound") {
  const ChainFixture source({qcow2_layer(1 << 20, "cluster_size=4096", kSourceWrites)});
  const std::string disk = source.bytes_of_top();
  for (const ThereShape& shape : images_there()) {
    ChainFixture there(shape.layers);
    there.keep();
    const std::string before = there.bytes_of_top();
    const std::string after = written_over(before, disk);
    const DiskFormat format = *format_from_name(there.top_format());
    bool reached = true;
    for (std::uint64_t n = 0; reached; ++n) {
      REQUIRE(n < 4000);
      if (n > 20 && n % 7 != 0) continue;
      for (const int fault : {0, 1, 2}) {
        CAPTURE(shape.what);
        CAPTURE(n);
        CAPTURE(fault);
        there.restore();
        FaultPlan plan{.surviving = Surviving::kTornPart, .seed = static_cast<unsigned>(n) + 3};
        (fault == 0 ? plan.cut_at : fault == 1 ? plan.full_at : plan.sync_fails_at) = n;
        {
          Operation operation({"/"});
          testing::fail_as_planned(operation, plan);
          const Result<Converted> result = convert_into(source, there, operation);
          reached = plan.reached;
          REQUIRE(result.ok() == !reached);
        }
        const std::string now = testing::guest_bytes(there.top(), format).value();
        REQUIRE(now.size() == before.size());
        for (std::size_t at = 0; at < now.size(); at += 512) {
          const auto same = [&](const std::string& other) { return now.compare(at, 512, other, at, 512) == 0; };
          const bool either = same(before) || same(after);
          if (!either || (!reached && !same(after))) FAIL("the sector at ", at, " is neither as before nor as after");
        }
        there.require_sound(there.size() - 1, reached, false);
      }
    }
  }
}

TEST_CASE("I35 I40: what cannot be written over is refused, and stays as it is") {
  const ChainFixture source({raw_layer(2 << 20, {"write -P 0x11 0 2M"}), qcow2_layer(2 << 20, "", {})});
  ChainFixture small({qcow2_layer(1 << 20, "", {"write -P 0x77 0 1M"})});
  const std::string before = testing::slurp(small.top());
  const auto refused = [&](const std::string& target, DiskFormat format, bool compress = false) {
    Operation operation({"/"});
    ConvertOptions options{.target = ConvertInto{.format = format}};
    options.compress = compress;
    const Result<Converted> result = convert_image({source.top()}, target, options, operation.context);
    REQUIRE_FALSE(result.ok());
    return result.error().code;
  };
  CHECK(refused(small.top(), DiskFormat::kQcow2) == ErrorCode::kImageTooSmall);
  CHECK(refused(small.top(), DiskFormat::kQcow2, true) == ErrorCode::kUnsupported);
  CHECK(refused(small.top() + "-not", DiskFormat::kQcow2) == ErrorCode::kImageNotFound);
  CHECK(refused(source.top(), DiskFormat::kQcow2) == ErrorCode::kImageLocked);
  CHECK(refused(source.path(0), DiskFormat::kRaw) == ErrorCode::kImageLocked);
  CHECK(testing::slurp(small.top()) == before);
  CHECK(source.bytes_of_top() == std::string(2 << 20, '\x11'));
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
    const Result<Converted> result = convert_image({fixture.top()}, directory.file("t"), options, operation.context);
    REQUIRE_FALSE(result.ok());
    CHECK(result.error().code == ErrorCode::kCancelled);
    CHECK(files_beside(directory.file("t")) == 0);
  }
  const ChainFixture there({qcow2_layer(64 << 20, "", {"write -P 0x77 0 64M"})});
  for (const std::uint64_t most : {0u, 16u << 20}) {
    Operation operation;
    operation.progress.on_report = [&](const ProgressReport& report) {
      if (report.done >= most) operation.cancel.cancel();
    };
    const Result<Converted> result = convert_into(fixture, there, operation);
    REQUIRE_FALSE(result.ok());
    CHECK(result.error().code == ErrorCode::kCancelled);
    there.require_sound(0, true, true);
  }
  Operation operation;
  ConvertOptions options{.target = qcow2_target({.preallocation = Preallocation::kFull}),
                         .source_format = DiskFormat::kRaw};
  require_ok(convert_image({fixture.top()}, directory.file("t"), options, operation.context));
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
  const Result<Converted> result =
      convert_image({packed}, directory.file("t"), {.target = qcow2_target()}, operation.context);
  REQUIRE_FALSE(result.ok());
  CHECK(result.error().code == ErrorCode::kImageCorrupt);
  CHECK_FALSE(std::filesystem::exists(directory.file("t")));
}

}  // namespace sluicebox::image
