#include <doctest/doctest.h>
#include <sys/stat.h>

#include <array>
#include <fstream>

#include "image/ops/resize.h"
#include "test/image/chain_fixture.h"

namespace sluicebox::image {
namespace {

using testing::ChainFixture;
using testing::FaultPlan;
using testing::kSnapshot;
using testing::LayerShape;
using testing::Operation;
using testing::qcow2_layer;
using testing::raw_layer;
using testing::require_ok;
using testing::Surviving;

struct Resizing {
  const char* what;
  std::vector<LayerShape> layers;
  std::uint64_t size;
  bool has_snapshot = false;  // kSnapshot
  Preallocation preallocation = Preallocation::kOff;
};

// Shared clusters, shared tables, and parts that are the disk's or the snapshot's alone.
LayerShape snapshotted(std::uint64_t size, const char* options) {
  return qcow2_layer(size, options,
                     {"write -P 0x31 0 40k", "write -P 0x32 60k 30k", kSnapshot, "write -P 0x33 8k 8k",
                      "write -z 64k 8k", "write -P 0x34 96k 4k"});
}
constexpr std::array<const char*, 3> kCounted = {"cluster_size=512", "cluster_size=65536,lazy_refcounts=on",
                                                 "cluster_size=16384,extended_l2=on"};

std::string kept_bytes(const ChainFixture& fixture, const Resizing& each) {
  if (!each.has_snapshot) return "";
  const auto bytes = testing::guest_bytes(fixture.top(), DiskFormat::kQcow2, kSnapshot);
  require_ok(bytes);
  return bytes.value();
}

std::vector<Resizing> growths() {
  std::vector<Resizing> all;
  for (const char* options : {"cluster_size=512", "cluster_size=512,compat=0.10", "cluster_size=4096,refcount_bits=1",
                              "cluster_size=65536,refcount_bits=64", "cluster_size=65536,lazy_refcounts=on",
                              "cluster_size=65536,extended_l2=on", "cluster_size=16384,extended_l2=on"}) {
    all.push_back({"alone, within its last cluster and past it",
                   {qcow2_layer(100 * 1024 + 512, options, {"write -P 0x31 0 8k", "write -P 0x32 90k 10k"})},
                   1 << 20});
    all.push_back({"over a larger backing",
                   {raw_layer(700 << 10, {"write -P 0x11 0 700k"}),
                    qcow2_layer(100 * 1024 + 512, options, {"write -P 0x31 8k 8k", "write -z 48k 8k"})},
                   512 << 10});
    all.push_back(
        {"over a larger chain, to more than that has",
         {qcow2_layer(400 << 10, "", {"write -P 0x11 0 300k"}), qcow2_layer(300 << 10, "", {"write -P 0x12 96k 70k"}),
          qcow2_layer(66 << 10, options, {"write -P 0x31 65k 1k"})},
         600 << 10});
    all.push_back(
        {"over a smaller backing",
         {raw_layer(64 << 10, {"write -P 0x11 0 64k"}), qcow2_layer(128 << 10, options, {"write -P 0x31 60k 8k"})},
         (256 << 10) + 512});
  }
  for (const char* options : kCounted) {
    all.push_back({.what = "with a snapshot, over a larger backing",
                   .layers = {raw_layer(700 << 10, {"write -P 0x11 0 700k"}), snapshotted(100 * 1024 + 512, options)},
                   .size = 1 << 20,
                   .has_snapshot = true});
  }
  for (const char* options :
       {"cluster_size=512", "cluster_size=65536,compat=0.10", "cluster_size=16384,extended_l2=on"}) {
    for (const Preallocation each : {Preallocation::kMetadata, Preallocation::kFalloc, Preallocation::kFull}) {
      all.push_back({.what = "allocated, over a larger backing",
                     .layers = {raw_layer(300 << 10, {"write -P 0x11 0 300k"}),
                                qcow2_layer(100 * 1024 + 512, options, {"write -P 0x31 8k 8k"})},
                     .size = (350 << 10) + 512,
                     .preallocation = each});
    }
  }
  all.push_back({.what = "allocated, with a snapshot",
                 .layers = {raw_layer(64 << 10, {"write -P 0x11 0 64k"}), snapshotted(128 << 10, "cluster_size=4096")},
                 .size = 300 << 10,
                 .has_snapshot = true,
                 .preallocation = Preallocation::kFalloc});
  for (const Preallocation each : {Preallocation::kOff, Preallocation::kFalloc, Preallocation::kFull}) {
    all.push_back({.what = "raw",
                   .layers = {raw_layer(100 << 10, {"write -P 0x11 0 100k"})},
                   .size = (200 << 10) + 512,
                   .preallocation = each});
  }
  return all;
}

std::vector<Resizing> shrinkings() {
  std::vector<Resizing> all;
  for (const char* options : {"cluster_size=512", "cluster_size=512,compat=0.10", "cluster_size=4096,refcount_bits=1",
                              "cluster_size=65536,refcount_bits=64", "cluster_size=65536,extended_l2=on"}) {
    all.push_back(
        {"of an image that is all data", {qcow2_layer(400 << 10, options, {"write -P 0x31 0 400k"})}, 130 << 10});
    all.push_back(
        {"of an overlay",
         {raw_layer(512 << 10, {"write -P 0x11 0 512k"}),
          qcow2_layer(512 << 10, options, {"write -P 0x31 8k 8k", "write -z 300k 64k", "write -P 0x32 200k 90k"})},
         (66 << 10) + 512});
    all.push_back({"to nothing", {qcow2_layer(256 << 10, options, {"write -P 0x31 0 100k"})}, 0});
  }
  for (const char* options : kCounted) {
    all.push_back({.what = "with a snapshot",
                   .layers = {raw_layer(200 << 10, {"write -P 0x11 0 200k"}), snapshotted(400 << 10, options)},
                   .size = (62 << 10) + 512,
                   .has_snapshot = true});
  }
  all.push_back({"raw", {raw_layer(200 << 10, {"write -P 0x11 0 200k"})}, 100 << 10});
  return all;
}

std::string resized(std::string bytes, std::uint64_t size) {
  bytes.resize(size, '\0');
  return bytes;
}

Result<ImageInfo> resize(const ChainFixture& fixture, std::uint64_t size, bool shrink) {
  Operation operation;
  return resize_image(fixture.top(), {.size = size, .shrink = shrink, .format = format_from_name(fixture.top_format())},
                      operation.context);
}

Result<ImageInfo> resize(const ChainFixture& fixture, const Resizing& each, bool shrink, Operation& operation) {
  return resize_image(fixture.top(),
                      {.size = each.size,
                       .shrink = shrink,
                       .preallocation = each.preallocation,
                       .format = format_from_name(fixture.top_format())},
                      operation.context);
}

std::uint64_t file_size(const std::string& path) { return std::filesystem::file_size(path); }

}  // namespace

TEST_CASE("I34: a disk that grew reads as before, and zeros behind, whatever it or a larger backing has there") {
  for (const Resizing& each : growths()) {
    CAPTURE(each.what);
    CAPTURE(each.layers.back().options);
    const ChainFixture fixture(each.layers);
    const std::string before = fixture.bytes_of_top();
    const std::string kept = kept_bytes(fixture, each);
    Operation operation;
    const Result<ImageInfo> result = resize(fixture, each, false, operation);
    require_ok(result);
    CHECK((kept_bytes(fixture, each) == kept));
    CHECK(result.value().virtual_bytes == each.size);
    CHECK((fixture.bytes_of_top() == resized(before, each.size)));
    const auto format = *format_from_name(fixture.top_format());
    CHECK((testing::guest_bytes(fixture.top(), format).value() == resized(before, each.size)));
    fixture.require_sound(fixture.size() - 1, false, true);
  }
}

TEST_CASE("I34: a disk that shrank reads as its beginning, is clean, and gives its space back") {
  for (const Resizing& each : shrinkings()) {
    CAPTURE(each.what);
    CAPTURE(each.layers.back().options);
    const ChainFixture fixture(each.layers);
    const std::string before = fixture.bytes_of_top();
    const std::string kept = kept_bytes(fixture, each);
    const std::uint64_t file_before = file_size(fixture.top());
    require_ok(resize(fixture, each.size, true));
    CHECK((fixture.bytes_of_top() == resized(before, each.size)));
    fixture.require_sound(fixture.size() - 1, false, true);
    // What a snapshot keeps takes its space.
    CHECK((each.has_snapshot || file_size(fixture.top()) < file_before));
    // What was there does not come back.
    require_ok(resize(fixture, before.size() + 512, false));
    CHECK((fixture.bytes_of_top() == resized(resized(before, each.size), before.size() + 512)));
    fixture.require_sound(fixture.size() - 1, false, true);
    CHECK((kept_bytes(fixture, each) == kept));
    if (!each.has_snapshot) continue;
    ChainFixture::must(testing::qemu_img({"snapshot", "-a", kSnapshot, fixture.top()}));
    CHECK((fixture.bytes_of_top() == kept));
    fixture.require_sound(fixture.size() - 1, false, true);
  }
}

TEST_CASE("I34: an L1 table that needs more clusters than one block of counts has grows, with the refcount table") {
  for (const char* options :
       {"cluster_size=512", "cluster_size=512,refcount_bits=64", "cluster_size=1024,compat=0.10"}) {
    CAPTURE(options);
    const ChainFixture fixture({qcow2_layer(1 << 20, options, {"write -P 0x31 0 300k", "write -P 0x32 1000k 24k"})});
    for (const std::uint64_t size : {std::uint64_t{100} << 20, std::uint64_t{8} << 30}) {
      CAPTURE(size);
      require_ok(resize(fixture, size, false));
      fixture.require_sound(0, false, true);
      ChainFixture::must(testing::qemu_io(fixture.top(), "qcow2",
                                          {"read -P 0x31 0 300k", "read -P 0 300k 700k", "read -P 0x32 1000k 24k",
                                           "read -P 0 1M 32M", "write -P 0x41 99M 1M", "read -P 0x41 99M 1M"}));
      fixture.require_sound(0, false, true);
      ChainFixture::must(testing::qemu_io(fixture.top(), "qcow2", {"write -z 99M 1M"}));
    }
  }
}

TEST_CASE("I34: a shrink cuts off blocks of counts that nothing needs any more, wherever they lie") {
  const ChainFixture fixture({qcow2_layer(8 << 20, "cluster_size=4096,refcount_bits=64", {"write -P 0x31 0 8M"})});
  REQUIRE(file_size(fixture.top()) > 8 << 20);
  require_ok(resize(fixture, 64 << 10, true));
  CHECK(file_size(fixture.top()) < 512 << 10);
  fixture.require_sound(0, false, true);
  ChainFixture::must(testing::qemu_io(fixture.top(), "qcow2", {"read -P 0x31 0 64k"}));
}

TEST_CASE("I34: shrinking without being asked to, and what cannot be resized, is refused, and nothing is written") {
  const auto refused = [](const ChainFixture& fixture, const ResizeOptions& options, ErrorCode code, const char* says) {
    const std::string before = testing::slurp(fixture.top());
    Operation operation;
    const Result<ImageInfo> result = resize_image(fixture.top(), options, operation.context);
    REQUIRE_FALSE(result.ok());
    CAPTURE(result.error().message);
    CHECK(result.error().code == code);
    CHECK(result.error().message.find(says) != std::string::npos);
    CHECK((testing::slurp(fixture.top()) == before));
  };
  const ChainFixture mapped({qcow2_layer(1 << 20, "", {"write -P 0x31 0 64k"})});
  const ChainFixture flat({raw_layer(1 << 20, {})});
  refused(mapped, {.size = 512}, ErrorCode::kInvalidArgument, "shrink: ");
  refused(flat, {.size = 512, .format = DiskFormat::kRaw}, ErrorCode::kInvalidArgument, "shrink: ");
  refused(flat, {.size = 2 << 20, .preallocation = Preallocation::kMetadata, .format = DiskFormat::kRaw},
          ErrorCode::kInvalidArgument, "no metadata");
  refused(flat, {.size = 512, .shrink = true, .preallocation = Preallocation::kFull, .format = DiskFormat::kRaw},
          ErrorCode::kInvalidArgument, "preallocation: ");
  for (const std::uint64_t huge : {~std::uint64_t{0}, std::uint64_t{1} << 63, (std::uint64_t{1} << 63) - 1}) {
    refused(mapped, {.size = huge}, ErrorCode::kInvalidArgument, "size: ");
  }
  refused(flat, {.size = std::uint64_t{1} << 63, .format = DiskFormat::kRaw}, ErrorCode::kInvalidArgument, "size: ");
  // Of version 2 snapshots are as large as the disk is.
  const ChainFixture old({qcow2_layer(1 << 20, "compat=0.10", {"write -P 0x31 0 64k", kSnapshot})});
  refused(old, {.size = 2 << 20}, ErrorCode::kUnsupported, "internal snapshots");
}

TEST_CASE("I15 I34: a disk that grows with space behind it has that space, which a guest's writes then use") {
  constexpr std::uint64_t kSmall = 100 << 10, kLarge = 3 << 20, kClusters = (kLarge - kSmall) / 65536 * 65536;
  for (const bool raw : {true, false}) {
    for (const Preallocation preallocation : {Preallocation::kMetadata, Preallocation::kFalloc, Preallocation::kFull}) {
      if (raw && preallocation == Preallocation::kMetadata) continue;
      const std::vector<std::string> writes = {"write -P 0x11 0 100k"};
      const ChainFixture fixture({raw ? raw_layer(kSmall, writes) : qcow2_layer(kSmall, "", writes)});
      const std::string before = fixture.bytes_of_top();
      Operation operation;
      require_ok(resize_image(
          fixture.top(),
          {.size = kLarge, .preallocation = preallocation, .format = format_from_name(fixture.top_format())},
          operation.context));
      struct stat status = {};
      REQUIRE(::stat(fixture.top().c_str(), &status) == 0);
      if (preallocation != Preallocation::kMetadata) {
        CHECK(static_cast<std::uint64_t>(status.st_blocks) * 512 >= kClusters);
      }
      CHECK((fixture.bytes_of_top() == resized(before, kLarge)));
      if (raw) continue;
      fixture.require_sound(0, false, true);
      ChainFixture::must(testing::qemu_io(fixture.top(), "qcow2", {"write -P 0x41 192k 2M"}));
      struct stat written = {};
      REQUIRE(::stat(fixture.top().c_str(), &written) == 0);
      CHECK(written.st_size == status.st_size);
    }
  }
}

TEST_CASE("I34 I37: with the power cut at each write and sync in turn, a resized disk is as before or as after") {
  for (const bool shrink : {false, true}) {
    for (const Resizing& each : shrink ? shrinkings() : growths()) {
      ChainFixture fixture(each.layers);
      fixture.keep();
      const std::string before = fixture.bytes_of_top();
      const std::string after = resized(before, each.size);
      const std::string kept = kept_bytes(fixture, each);
      const DiskFormat format = *format_from_name(fixture.top_format());
      bool reached = true;
      for (std::uint64_t n = 0; reached; ++n) {
        REQUIRE(n < 2000);
        for (const Surviving surviving : testing::survivals(n)) {
          CAPTURE(each.what);
          CAPTURE(each.layers.back().options);
          CAPTURE(static_cast<int>(each.preallocation));
          CAPTURE(n);
          CAPTURE(static_cast<int>(surviving));
          fixture.restore();
          FaultPlan plan{.cut_at = n, .surviving = surviving, .seed = static_cast<unsigned>(n) + 7};
          {
            Operation operation;
            fail_as_planned(operation, plan);
            const Result<ImageInfo> result = resize(fixture, each, shrink, operation);
            reached = plan.reached;
            REQUIRE(result.ok() == !reached);
          }
          const Result<std::string> now = testing::guest_bytes(fixture.top(), format);
          REQUIRE(now.ok());
          REQUIRE((now.value() == before || now.value() == after));
          if (!reached) REQUIRE(now.value() == after);
          REQUIRE((kept_bytes(fixture, each) == kept));
          const bool ask_qemu = n % 16 == 0 || !reached;
          fixture.require_sound(fixture.size() - 1, reached, ask_qemu);
          if (ask_qemu) REQUIRE((fixture.bytes_of_top() == now.value()));
          // Asked for again, it comes to what was meant.
          require_ok(resize(fixture, each.size, shrink));
          REQUIRE((testing::guest_bytes(fixture.top(), format).value() == after));
          fixture.require_sound(fixture.size() - 1, true, false);
        }
      }
    }
  }
}

TEST_CASE("I38: a disk that runs full, or a sync that fails, while an image is resized is a typed error") {
  for (const bool shrink : {false, true}) {
    for (const Resizing& each : shrink ? shrinkings() : growths()) {
      ChainFixture fixture(each.layers);
      fixture.keep();
      const std::string before = fixture.bytes_of_top();
      const std::string after = resized(before, each.size);
      const std::string kept = kept_bytes(fixture, each);
      const DiskFormat format = *format_from_name(fixture.top_format());
      for (const bool full : {true, false}) {
        bool reached = true;
        for (std::uint64_t n = 0; reached; ++n) {
          REQUIRE(n < 2000);
          CAPTURE(each.what);
          CAPTURE(each.layers.back().options);
          CAPTURE(n);
          CAPTURE(full);
          fixture.restore();
          FaultPlan plan;
          (full ? plan.full_at : plan.sync_fails_at) = n;
          {
            Operation operation;
            fail_as_planned(operation, plan);
            const Result<ImageInfo> result = resize(fixture, each, shrink, operation);
            reached = plan.reached;
            REQUIRE(result.ok() == !reached);
            if (reached) REQUIRE(result.error().code == (full ? ErrorCode::kNoSpace : ErrorCode::kIo));
          }
          const Result<std::string> now = testing::guest_bytes(fixture.top(), format);
          REQUIRE(now.ok());
          REQUIRE((now.value() == before || now.value() == after));
          REQUIRE((kept_bytes(fixture, each) == kept));
          fixture.require_sound(fixture.size() - 1, reached, false);
        }
      }
    }
  }
}

TEST_CASE("I53: a resize that is cancelled leaves the disk as large as it was, and its progress never goes back") {
  const ChainFixture fixture({raw_layer(256 << 20, {"write -P 0x11 0 512", "write -P 0x12 200M 1M"}),
                              qcow2_layer(1 << 20, "compat=0.10", {"write -P 0x31 0 64k"})});
  const std::string before = testing::slurp(fixture.top());
  {
    Operation operation;
    operation.progress.on_report = [&](const ProgressReport& report) {
      if (report.done > 64 << 20) operation.cancel.cancel();
    };
    const Result<ImageInfo> result = resize_image(fixture.top(), {.size = 256 << 20}, operation.context);
    REQUIRE_FALSE(result.ok());
    CHECK(result.error().code == ErrorCode::kCancelled);
  }
  fixture.require_sound(1, true, true);
  CHECK(testing::guest_bytes(fixture.top(), DiskFormat::kQcow2).value().size() == 1 << 20);
  Operation operation;
  require_ok(resize_image(fixture.top(), {.size = 256 << 20}, operation.context));
  std::uint64_t done = 0;
  for (const ProgressReport& report : operation.progress.reports) {
    CHECK(report.done >= done);
    done = report.done;
  }
  CHECK(done == 255 << 20);
}

}  // namespace sluicebox::image
