#include <doctest/doctest.h>

#include <filesystem>
#include <random>

#include "image/ops/commit.h"
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

struct Committing {
  const char* what;
  std::vector<LayerShape> layers;
  std::size_t into;  // which of them
};

const std::vector<std::string> kBaseWrites = {"write -P 0x11 0 150k", "write -P 0x12 200k 20k"};
const std::vector<std::string> kTopWrites = {"write -P 0x31 8k 9k", "write -z 64k 8k", "write -P 0x32 180k 33k",
                                             "write -P 0x33 255k 512"};

const std::vector<std::string> kFewKinds = {"cluster_size=512,compat=0.10", "cluster_size=4096,refcount_bits=1"};
const std::vector<std::string> kAllKinds = {"cluster_size=512",
                                            "cluster_size=4096,refcount_bits=1",
                                            "cluster_size=65536",
                                            "cluster_size=512,compat=0.10",
                                            "cluster_size=65536,lazy_refcounts=on",
                                            "cluster_size=65536,extended_l2=on"};

std::vector<Committing> commits(const std::vector<std::string>& kinds) {
  std::vector<Committing> all;
  constexpr std::uint64_t kDisk = 256 << 10;
  for (const std::string& options : kinds) {
    all.push_back({"into raw", {raw_layer(kDisk, kBaseWrites), qcow2_layer(kDisk, options, kTopWrites)}, 0});
    all.push_back({"clusters of 4096 into other ones",
                   {qcow2_layer(kDisk, options, kBaseWrites), qcow2_layer(kDisk, "cluster_size=4096", kTopWrites)},
                   0});
    all.push_back({"into a smaller qcow2 base over a larger one",
                   {raw_layer(512 << 10, {"write -P 0x15 0 512k"}),
                    qcow2_layer((100 << 10) + 512, options, {"write -P 0x16 50k 20k"}),
                    qcow2_layer(kDisk, "cluster_size=4096", kTopWrites)},
                   1});
    all.push_back({"into a larger base",
                   {qcow2_layer(400 << 10, options, {"write -P 0x15 0 400k"}),
                    qcow2_layer(kDisk + 512, "cluster_size=512", kTopWrites)},
                   0});
    all.push_back({"past two layers, one of them short",
                   {qcow2_layer(300 << 10, options, kBaseWrites), qcow2_layer(kDisk, options, {"write -P 0x21 0 20k"}),
                    qcow2_layer(130 << 10, "cluster_size=4096", {"write -P 0x22 10k 20k", "write -z 100k 12k"}),
                    qcow2_layer(kDisk, options, kTopWrites)},
                   0});
  }
  all.push_back({"into a smaller raw base", {raw_layer(100 << 10, {}), qcow2_layer(kDisk, "", kTopWrites)}, 0});
  return all;
}

CommitOptions options_for(const Committing& each, bool keep = true) {
  CommitOptions options{.overlay = keep ? Committed::kEmptied : Committed::kRemoved};
  if (each.into != each.layers.size() - 2) options.into = std::to_string(each.into);
  return options;
}

Result<CommitResult> commit(const std::string& path, const CommitOptions& options) {
  Operation operation;
  return commit_image(path, options, operation.context);
}

std::string ours(const ChainFixture& fixture, std::size_t layer) {
  return testing::guest_bytes(fixture.path(layer), *format_from_name(fixture.format(layer))).value();
}

// The base as it has to be: the overlay's bytes, and behind them, its own.
std::string over(const std::string& overlay, const std::string& base) {
  return base.size() <= overlay.size() ? overlay : overlay + base.substr(overlay.size());
}

}  // namespace

TEST_CASE("I33: after a commit base and overlay read as the overlay did, and the overlay holds nothing") {
  for (const Committing& each : commits(kAllKinds)) {
    CAPTURE(each.what);
    CAPTURE(each.layers.front().options);
    CAPTURE(each.layers.back().options);
    ChainFixture fixture(each.layers);
    fixture.keep();
    const std::size_t top = fixture.size() - 1;
    const std::string before = fixture.bytes(top);
    const std::string base_before = fixture.bytes(each.into);
    for (const bool keep : {true, false}) {
      CAPTURE(keep);
      fixture.restore();
      const std::uint64_t length = std::filesystem::file_size(fixture.top());
      require_ok(commit(fixture.top(), options_for(each, keep)));
      CHECK((fixture.bytes(each.into) == over(before, base_before)));
      fixture.require_sound(each.into, false, true);
      CHECK(std::filesystem::exists(fixture.top()) == keep);
      if (!keep) continue;
      CHECK((fixture.bytes(top) == before));
      CHECK((ours(fixture, top) == before));
      fixture.require_sound(top, false, true);
      CHECK(std::filesystem::file_size(fixture.top()) < length);
      // All that it shows is its backing's, which is the base.
      Operation operation;
      const Layer layer = open_layer(fixture.top(), std::nullopt, Access::kRead, operation.context).value();
      CHECK(layer.block->status(0, layer.block->size()).value().mapping == Mapping::kUnallocated);
      CHECK(layer.block->status(0, layer.block->size()).value().length == layer.block->size());
      CHECK(layer.block->backing()->path == std::to_string(each.into));
    }
  }
}

TEST_CASE("I33: with the power cut at each write and sync in turn, the overlay reads as before, or its base holds it") {
  for (const Committing& each : commits(kFewKinds)) {
    ChainFixture fixture(each.layers);
    fixture.keep();
    const std::size_t top = fixture.size() - 1;
    const std::string before = fixture.bytes(top);
    const std::string base_before = fixture.bytes(each.into);
    for (const bool keep : {true, false}) {
      // What removes the overlay writes to no image: one shape tells as much as all.
      if (!keep && each.layers.front().format != "raw") continue;
      bool reached = true;
      for (std::uint64_t n = 0; reached; ++n) {
        REQUIRE(n < 2000);
        for (const Surviving surviving : testing::survivals(n)) {
          CAPTURE(each.what);
          CAPTURE(each.layers.front().options);
          CAPTURE(each.layers.back().options);
          CAPTURE(keep);
          CAPTURE(n);
          CAPTURE(static_cast<int>(surviving));
          fixture.restore();
          FaultPlan plan{.cut_at = n, .surviving = surviving, .seed = static_cast<unsigned>(n) + 7};
          {
            Operation operation;
            fail_as_planned(operation, plan);
            const Result<CommitResult> result = commit_image(fixture.top(), options_for(each, keep), operation.context);
            reached = plan.reached;
            REQUIRE(result.ok() == !reached);
          }
          const bool ask_qemu = n % 16 == 0 || !reached;
          fixture.require_sound(each.into, reached, ask_qemu);
          if (std::filesystem::exists(fixture.top())) {
            REQUIRE((ours(fixture, top) == before));
            fixture.require_sound(top, reached, ask_qemu);
            if (ask_qemu) REQUIRE((fixture.bytes(top) == before));
            // Asked for again, it comes to what was meant.
            if (each.into == top - 1 || reached) (void)commit(fixture.top(), options_for(each, keep));
          }
          REQUIRE((ours(fixture, each.into) == over(before, base_before)));
        }
      }
    }
  }
}

TEST_CASE("I38: a disk that runs full, or a sync that fails, while an overlay is committed is a typed error") {
  for (const Committing& each : commits(kFewKinds)) {
    ChainFixture fixture(each.layers);
    fixture.keep();
    const std::size_t top = fixture.size() - 1;
    const std::string before = fixture.bytes(top);
    for (const bool full : {true, false}) {
      bool reached = true;
      for (std::uint64_t n = 0; reached; ++n) {
        REQUIRE(n < 2000);
        CAPTURE(each.what);
        CAPTURE(each.layers.front().options);
        CAPTURE(n);
        CAPTURE(full);
        fixture.restore();
        FaultPlan plan;
        (full ? plan.full_at : plan.sync_fails_at) = n;
        {
          Operation operation;
          fail_as_planned(operation, plan);
          const Result<CommitResult> result = commit_image(fixture.top(), options_for(each), operation.context);
          reached = plan.reached;
          REQUIRE(result.ok() == !reached);
          if (reached) REQUIRE(result.error().code == (full ? ErrorCode::kNoSpace : ErrorCode::kIo));
        }
        REQUIRE((ours(fixture, top) == before));
        fixture.require_sound(top, reached, false);
        fixture.require_sound(each.into, reached, false);
      }
    }
  }
}

TEST_CASE("I33: random overlays over random bases: what is committed is what was there, says qemu-img compare") {
  std::mt19937 random(20261122);
  const auto pick = [&](std::uint64_t below) { return random() % below; };
  for (int round = 0; round < 12; ++round) {
    std::vector<LayerShape> layers;
    const std::size_t depth = 2 + pick(3);
    for (std::size_t i = 0; i < depth; ++i) {
      LayerShape shape;
      shape.format = i == 0 && pick(2) == 0 ? "raw" : "qcow2";
      if (shape.format == "qcow2") {
        shape.options = "cluster_size=" + std::to_string(512u << pick(9)) + (pick(4) == 0 ? ",compat=0.10" : "");
      }
      shape.size = (1 + pick(4096)) * 512;
      for (std::uint64_t writes = pick(12); writes > 0; --writes) {
        const std::uint64_t at = pick(shape.size / 512) * 512;
        const std::uint64_t length = std::min((1 + pick(300)) * 512, shape.size - at);
        const std::string how = pick(4) == 0 ? "-z" : "-P " + std::to_string(1 + pick(255));
        shape.writes.push_back("write " + how + " " + std::to_string(at) + " " + std::to_string(length));
      }
      layers.push_back(std::move(shape));
    }
    ChainFixture fixture(layers);
    fixture.keep();
    const std::size_t top = depth - 1;
    const Committing each{.what = "random", .layers = layers, .into = pick(top)};
    CAPTURE(round);
    CAPTURE(each.into);
    const std::string before = fixture.bytes(top);
    const std::string base_before = fixture.bytes(each.into);
    require_ok(commit(fixture.top(), options_for(each)));
    CHECK((fixture.bytes(top) == before));
    CHECK((fixture.bytes(each.into) == over(before, base_before)));
    fixture.require_sound(top, false, true);
    fixture.require_sound(each.into, false, true);
    if (base_before.size() > before.size()) continue;
    const testing::RunResult compared = testing::qemu_img(
        {"compare", "-f", "qcow2", "-F", fixture.format(each.into), fixture.top(), fixture.path(each.into)});
    INFO(compared.output);
    CHECK(compared.exit_code == 0);
  }
}

TEST_CASE("I33: a base that is too small grows beside its snapshots, which keep what they had") {
  const ChainFixture fixture({qcow2_layer(100 << 10, "", {"write -P 0x11 0 64k", testing::kSnapshot}),
                              qcow2_layer(2 << 20, "", {"write -P 0x31 60k 64k", "write -P 0x32 1M 64k"})});
  const std::string before = fixture.bytes_of_top();
  const auto kept = testing::guest_bytes(fixture.path(0), DiskFormat::kQcow2, testing::kSnapshot);
  require_ok(kept);
  REQUIRE(kept.value().size() == 100 << 10);
  require_ok(commit(fixture.top(), {}));
  CHECK((fixture.bytes(0) == before));
  CHECK((testing::guest_bytes(fixture.path(0), DiskFormat::kQcow2, testing::kSnapshot).value() == kept.value()));
  fixture.require_sound(0, false, true);
}

TEST_CASE("I33: a base that is too small and cannot grow is IMAGE_TOO_SMALL, and what has no such base is refused") {
  ChainFixture fixture({qcow2_layer(1 << 20, "compat=0.10", {"write -P 0x11 0 64k"}),
                        qcow2_layer(2 << 20, "", {"write -P 0x31 1M 64k"})});
  const auto refused = [&](const std::string& path, const CommitOptions& options, ErrorCode code) {
    const std::string before = testing::slurp(fixture.path(0));
    const std::string top_before = testing::slurp(fixture.path(1));
    const Result<CommitResult> result = commit(path, options);
    REQUIRE_FALSE(result.ok());
    CAPTURE(result.error().message);
    CHECK(result.error().code == code);
    CHECK((testing::slurp(fixture.path(0)) == before));
    CHECK((testing::slurp(fixture.path(1)) == top_before));
  };
  fixture.keep();
  refused(fixture.path(0), {}, ErrorCode::kImageChain);
  refused(fixture.top(), {.into = "1"}, ErrorCode::kImageChain);
  refused(fixture.top(), {.into = "gone"}, ErrorCode::kImageNotFound);
  refused(fixture.top(), {.into = "nbd:localhost"}, ErrorCode::kInvalidArgument);
  ChainFixture::must(testing::qemu_img({"snapshot", "-c", "one", fixture.path(0)}));
  refused(fixture.top(), {}, ErrorCode::kImageTooSmall);
  fixture.restore();
  ChainFixture::must(testing::qemu_img({"snapshot", "-c", "one", fixture.top()}));
  refused(fixture.top(), {}, ErrorCode::kUnsupported);
}

TEST_CASE("I30: internal snapshots of a base read as they did after something was committed into it") {
  const ChainFixture fixture(
      {qcow2_layer(1 << 20, "", {"write -P 0x11 0 1M"}), qcow2_layer(1 << 20, "", {"write -P 0x31 64k 600k"})});
  ChainFixture::must(testing::qemu_img({"snapshot", "-c", "one", fixture.path(0)}));
  const std::string before = fixture.bytes(0);
  const std::string top = fixture.bytes_of_top();
  require_ok(commit(fixture.top(), {}));
  CHECK((fixture.bytes(0) == top));
  fixture.require_sound(0, false, true);
  ChainFixture::must(testing::qemu_img({"snapshot", "-a", "one", fixture.path(0)}));
  CHECK((fixture.bytes(0) == before));
}

TEST_CASE("I39: a base that somebody else reads or writes is IMAGE_LOCKED") {
  const ChainFixture fixture({qcow2_layer(1 << 20, "", {}), qcow2_layer(1 << 20, "", {"write -P 0x31 64k 600k"})});
  for (const Access access : {Access::kRead, Access::kWrite}) {
    Operation other;
    const Layer open = open_layer(fixture.path(0), std::nullopt, access, other.context).value();
    const Result<CommitResult> result = commit(fixture.top(), {});
    REQUIRE_FALSE(result.ok());
    CHECK(result.error().code == ErrorCode::kImageLocked);
    CHECK(result.error().path == fixture.path(0));
  }
}

TEST_CASE("I53: a commit that is cancelled leaves the overlay as it was, and its progress never goes back") {
  const ChainFixture fixture(
      {raw_layer(1 << 20, {}), qcow2_layer(16 << 20, "", {"write -P 0x31 0 9M", "write -z 12M 1M"})});
  const std::string before = fixture.bytes_of_top();
  const std::string top = testing::slurp(fixture.top());
  {
    Operation operation;
    operation.progress.on_report = [&](const ProgressReport& report) {
      if (report.done > 3 << 20) operation.cancel.cancel();
    };
    const Result<CommitResult> result = commit_image(fixture.top(), {}, operation.context);
    REQUIRE_FALSE(result.ok());
    CHECK(result.error().code == ErrorCode::kCancelled);
  }
  CHECK((testing::slurp(fixture.top()) == top));
  CHECK((fixture.bytes_of_top() == before));
  Operation operation;
  const Result<CommitResult> result = commit_image(fixture.top(), {}, operation.context);
  require_ok(result);
  CHECK(result.value().bytes_committed == 10 << 20);
  std::uint64_t done = 0;
  for (const ProgressReport& report : operation.progress.reports) {
    CHECK(report.done >= done);
    done = report.done;
  }
  CHECK(done == 10 << 20);
  CHECK((fixture.bytes(0) == before));
}

}  // namespace sluicebox::image
