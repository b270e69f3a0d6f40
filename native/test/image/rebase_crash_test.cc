#include <doctest/doctest.h>
#include <sys/stat.h>

#include <fstream>

#include "image/ops/check.h"
#include "test/image/fault_file.h"
#include "test/image/rebase_fixture.h"

namespace sluicebox::image {
namespace {

using testing::FaultFile;
using testing::FaultPlan;
using testing::Operation;
using testing::RebaseFixture;
using testing::RebaseShape;
using testing::Surviving;

Result<RebaseResult> rebase_with(const std::string& path, const RebaseOptions& options, FaultPlan& plan) {
  Operation operation;
  operation.context.wrap_file = [&plan](std::unique_ptr<File> file) -> std::unique_ptr<File> {
    return std::make_unique<FaultFile>(std::move(file), plan);
  };
  return rebase_image(path, options, operation.context);
}

// The image opens, checks without corruption (leaks at most, or a dirty mark that a repair clears), reads as `before`.
void require_whole(const RebaseFixture& fixture, const std::string& path, const std::string& before, bool ask_qemu) {
  const Result<std::string> now = testing::guest_bytes(path, DiskFormat::kQcow2);
  INFO((now.ok() ? "" : now.error().message));
  REQUIRE(now.ok());
  REQUIRE(now.value() == before);
  Operation operation;
  const Layer layer = open_layer(path, std::nullopt, Access::kRead, operation.context).value();
  const bool dirty = layer.block->info().dirty;
  if (!dirty) {
    const Result<CheckReport> report = check_image(path, {}, operation.context);
    REQUIRE(report.ok());
    REQUIRE(report.value().corruptions == 0);
  }
  if (!ask_qemu || dirty) return;
  const testing::RunResult checked = testing::qemu_img({"check", path});
  INFO(checked.output);
  REQUIRE((checked.exit_code == 0 || checked.exit_code == 3));
  REQUIRE(fixture.bytes(path) == before);
}

std::vector<RebaseShape> small_shapes() {
  std::vector<RebaseShape> shapes;
  for (const char* options :
       {"cluster_size=512", "cluster_size=4096,refcount_bits=1", "cluster_size=65536,lazy_refcounts=on",
        "cluster_size=512,compat=0.10", "cluster_size=65536,refcount_bits=64"}) {
    RebaseShape shape;
    shape.options = options;
    shape.size = shape.old_size = shape.new_size = 512 << 10;
    shape.new_size = 300 << 10;
    shape.old_writes = {"write -P 0x11 0 64k", "write -P 0x12 200k 40k", "write -P 0x13 400k 512"};
    shape.new_writes = {"write -P 0x11 0 32k", "write -P 0x21 100k 20k"};
    shape.overlay_writes = {"write -P 0x31 8k 8k", "write -z 48k 8k"};
    shapes.push_back(shape);
  }
  return shapes;
}

}  // namespace

TEST_CASE("I37: with the power cut at each write and sync in turn, a rebased image is whole and reads the same") {
  for (const RebaseShape& shape : small_shapes()) {
    const RebaseFixture fixture(shape);
    const std::string before = fixture.bytes(fixture.overlay);
    for (const bool detach : {false, true}) {
      const RebaseOptions options = detach ? RebaseOptions{} : fixture.onto_new();
      bool reached = true;
      for (std::uint64_t n = 0; reached; ++n) {
        REQUIRE(n < 5000);
        for (const Surviving surviving : testing::survivals(n)) {
          CAPTURE(shape.options);
          CAPTURE(detach);
          CAPTURE(n);
          CAPTURE(static_cast<int>(surviving));
          const std::string path = fixture.copy_of_overlay("cut.qcow2");
          FaultPlan plan{.cut_at = n, .surviving = surviving, .seed = static_cast<unsigned>(n) + 7};
          const Result<RebaseResult> result = rebase_with(path, options, plan);
          reached = plan.reached;
          if (reached) {
            REQUIRE(result.error().code == ErrorCode::kIo);
          } else {
            REQUIRE(result.ok());
          }
          require_whole(fixture, path, before, n % 16 == 0 || !reached);
        }
      }
    }
  }
}

TEST_CASE("I38: a disk that runs full, or a sync that fails, is a typed error and leaves a whole image") {
  for (const RebaseShape& shape : small_shapes()) {
    const RebaseFixture fixture(shape);
    const std::string before = fixture.bytes(fixture.overlay);
    bool reached = true;
    for (std::uint64_t n = 0; reached; ++n) {
      REQUIRE(n < 5000);
      reached = false;
      for (const bool full : {true, false}) {
        CAPTURE(shape.options);
        CAPTURE(n);
        CAPTURE(full);
        const std::string path = fixture.copy_of_overlay("fault.qcow2");
        FaultPlan plan;
        (full ? plan.full_at : plan.sync_fails_at) = n;
        const Result<RebaseResult> result = rebase_with(path, fixture.onto_new(), plan);
        if (plan.reached) {
          reached = true;
          REQUIRE(result.error().code == (full ? ErrorCode::kNoSpace : ErrorCode::kIo));
        } else {
          REQUIRE(result.ok());
        }
        require_whole(fixture, path, before, n % 16 == 0);
      }
    }
  }
}

namespace {

// The real file, on a disk that has no room for more than so many bytes.
class FullDisk final : public File {
 public:
  FullDisk(std::unique_ptr<File> file, std::uint64_t room) : file_(std::move(file)), room_(room) {}

  const std::string& path() const override { return file_->path(); }
  Result<std::uint64_t> size() const override { return file_->size(); }
  Result<std::uint64_t> allocated_bytes() const override { return file_->allocated_bytes(); }
  Result<std::size_t> read_at(std::uint64_t offset, MutableBytes out) const override {
    return file_->read_at(offset, out);
  }
  Status write_at(std::uint64_t offset, Bytes data) override {
    const std::uint64_t part = std::min<std::uint64_t>(room_, data.size());
    room_ -= part;
    TRY(file_->write_at(offset, data.first(part)));
    return part == data.size() ? Status() : os_error(ENOSPC, "cannot write", path());
  }
  Status sync() override { return file_->sync(); }
  Status truncate(std::uint64_t size) override { return file_->truncate(size); }
  Status allocate(std::uint64_t offset, std::uint64_t length) override { return file_->allocate(offset, length); }
  Result<FileExtent> extent_at(std::uint64_t offset, std::uint64_t length) const override {
    return file_->extent_at(offset, length);
  }

 private:
  std::unique_ptr<File> file_;
  std::uint64_t room_;
};

}  // namespace

TEST_CASE("I38 I53: a rebase that is cancelled or finds the disk full gives back what the overlay took meanwhile") {
  RebaseShape shape;
  shape.size = shape.old_size = 16 << 20;
  shape.old_writes = {"write -P 0x11 0 16M"};
  const RebaseFixture fixture(shape);
  const std::string before = fixture.bytes(fixture.overlay);
  const auto taken = [&] {
    struct stat status = {};
    REQUIRE(::stat(fixture.overlay.c_str(), &status) == 0);
    return std::pair(status.st_blocks, status.st_size);
  };
  const auto taken_before = taken();
  for (const bool full : {false, true}) {
    CAPTURE(full);
    Operation operation;
    auto most = taken_before;
    operation.progress.on_report = [&](const ProgressReport& report) {
      if (std::string(report.phase) != "compare") return;
      most = std::max(most, taken());
      if (!full && report.done >= 8 << 20) operation.cancel.cancel();
    };
    if (full) {
      operation.context.wrap_file = [](std::unique_ptr<File> file) -> std::unique_ptr<File> {
        return std::make_unique<FullDisk>(std::move(file), 7 << 20);
      };
    }
    const Result<RebaseResult> result = rebase_image(fixture.overlay, {}, operation.context);
    REQUIRE_FALSE(result.ok());
    CHECK(result.error().code == (full ? ErrorCode::kNoSpace : ErrorCode::kCancelled));
    CHECK(most.first >= taken_before.first + (4 << 20) / 512);
    CHECK(taken() == taken_before);
    require_whole(fixture, fixture.overlay, before, true);
    CHECK(testing::qemu_img({"check", fixture.overlay}).exit_code == 0);
  }
}

TEST_CASE("I53: the copied data are durable before the rebase takes the step that a cancel cannot stop") {
  const RebaseFixture fixture(small_shapes().front());
  FaultPlan plan{.sync_fails_at = 0};
  Operation operation;
  operation.context.wrap_file = [&plan](std::unique_ptr<File> file) -> std::unique_ptr<File> {
    return std::make_unique<FaultFile>(std::move(file), plan);
  };
  CHECK(rebase_image(fixture.overlay, fixture.onto_new(), operation.context).error().code == ErrorCode::kIo);
  CHECK(operation.cancel.cancel());
}

TEST_CASE("I37: after any cut the same rebase, run again, ends well") {
  const RebaseFixture fixture(small_shapes().front());
  const std::string before = fixture.bytes(fixture.overlay);
  bool reached = true;
  for (std::uint64_t n = 0; reached; n += 3) {
    CAPTURE(n);
    const std::string path = fixture.copy_of_overlay("again.qcow2");
    FaultPlan plan{.cut_at = n, .surviving = Surviving::kTornPart, .seed = static_cast<unsigned>(n)};
    const bool first = rebase_with(path, fixture.onto_new(), plan).ok();
    reached = plan.reached;
    CHECK(first == !reached);
    Operation operation;
    REQUIRE(rebase_image(path, fixture.onto_new(), operation.context).ok());
    require_whole(fixture, path, before, true);
  }
}

TEST_CASE("I37: a repair cut at each write and sync in turn loses nothing, and the next repair ends clean") {
  for (const char* options : {"cluster_size=512", "cluster_size=4096,refcount_bits=1", "cluster_size=65536"}) {
    RebaseShape shape = small_shapes().front();
    shape.options = options;
    const RebaseFixture fixture(shape);
    const std::string before = fixture.bytes(fixture.overlay);
    // The first refcount block is emptied: every cluster is used but not counted.
    std::string image = testing::slurp(fixture.overlay);
    const auto* bytes = Bytes(as_bytes(image)).data();
    const std::uint64_t table = load_be64(bytes + 48);
    const std::uint64_t block = load_be64(bytes + table);
    const std::uint64_t cluster = std::uint64_t{1} << load_be32(bytes + 20);
    image.replace(block, std::min<std::uint64_t>(cluster, image.size() - block), cluster, '\0');
    bool reached = true;
    for (std::uint64_t n = 0; reached; ++n) {
      REQUIRE(n < 5000);
      for (const Surviving surviving : testing::survivals(n)) {
        CAPTURE(options);
        CAPTURE(n);
        CAPTURE(static_cast<int>(surviving));
        const std::string path = fixture.directory.file("repair.qcow2");
        std::ofstream(path, std::ios::binary) << image;
        FaultPlan plan{.cut_at = n, .surviving = surviving, .seed = static_cast<unsigned>(n)};
        {
          Operation operation;
          operation.context.wrap_file = [&plan](std::unique_ptr<File> file) -> std::unique_ptr<File> {
            return std::make_unique<FaultFile>(std::move(file), plan);
          };
          const Result<CheckReport> cut = check_image(path, {.repair = Repair::kAll}, operation.context);
          reached = plan.reached;
          if (reached) {
            REQUIRE(cut.error().code == ErrorCode::kIo);
          } else {
            REQUIRE(cut.ok());
          }
        }
        Operation operation;
        REQUIRE(testing::guest_bytes(path, DiskFormat::kQcow2).value() == before);
        REQUIRE(check_image(path, {.repair = Repair::kAll}, operation.context).ok());
        const CheckReport report = check_image(path, {}, operation.context).value();
        REQUIRE(report.corruptions + report.leaks == 0);
        REQUIRE(testing::guest_bytes(path, DiskFormat::kQcow2).value() == before);
      }
    }
  }
}

}  // namespace sluicebox::image
