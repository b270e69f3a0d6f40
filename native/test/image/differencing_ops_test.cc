#include <filesystem>

#include "image/ops/check.h"
#include "image/ops/commit.h"
#include "image/ops/convert.h"
#include "image/ops/create.h"
#include "image/ops/info.h"
#include "image/ops/open_image.h"
#include "image/ops/rebase.h"
#include "test/image/fault_file.h"
#include "test/image/format_fixture.h"
#include "test/image/operation.h"
#include "test/image/qemu.h"
#include "test/image/temp_dir.h"

namespace sluicebox::image {
namespace {

using testing::FaultFile;
using testing::FaultPlan;
using testing::must;
using testing::Operation;
using testing::TempDir;

constexpr std::uint64_t kStackedDisk = 3 << 20;
constexpr DiskFormat kDifferencing[] = {DiskFormat::kVhd, DiskFormat::kVhdx};

struct PatternAt {
  std::uint64_t offset = 0, length = 0, seed = 0;
};

void write_into(const std::string& path, DiskFormat format, const std::vector<PatternAt>& writes) {
  Operation operation({"/"});
  const auto image = must(OpenImage::open(path, {.format = format}, operation.context));
  for (const PatternAt& each : writes) must(image->write(each.offset, testing::pattern(each.length, each.seed)));
  must(image->close());
}

// A base, another, and an overlay over the first with sectors, zeros and a whole block of its own.
struct Stack {
  explicit Stack(DiskFormat of) : format(of) {
    std::filesystem::create_directory(directory.file("others"));
    make(base, std::nullopt);
    make(other, std::nullopt);
    write_into(base, format, {{0, 1 << 20, 1}, {(2 << 20) + 512, 4096, 2}});
    write_into(other, format, {{0, 256 << 10, 1}, {1 << 20, 300 << 10, 3}});
    make(overlay, "base");
    write_into(overlay, format, {{1024, 1536, 4}, {1 << 20, 1 << 20, 5}});
  }

  void make(const std::string& path, const std::optional<std::string>& backing) const {
    Operation operation;
    CreateOptions options;
    if (format == DiskFormat::kVhd) {
      options.format = VhdCreate{.block_size = 512 << 10};
    } else {
      options.format = VhdxCreate{.block_size = 1 << 20};
    }
    if (backing) {
      options.backing = BackingOption{.path = *backing, .format = format};
    } else {
      options.size = kStackedDisk;
    }
    must(create_image(path, options, operation.context));
  }
  std::string bytes(const std::string& path) const { return must(testing::guest_bytes(path, format)); }
  std::string bytes() const { return bytes(overlay); }
  std::optional<ErrorCode> refusal() const {
    const auto read = testing::guest_bytes(overlay, format);
    return read.ok() ? std::nullopt : std::optional(read.error().code);
  }
  CheckReport check() const {
    Operation operation;
    return must(check_image(overlay, {.format = format}, operation.context));
  }
  ImageInfo info() const {
    Operation operation;
    return must(image_info(overlay, {.format = format}, operation.context));
  }
  RebaseOptions onto(const std::string& backing, bool unsafe = false) const {
    return {.backing = backing, .backing_format = format, .format = format, .unsafe = unsafe};
  }

  const DiskFormat format;
  TempDir directory;
  std::string base = directory.file("base"), other = directory.file("others/another base"),
              overlay = directory.file("overlay");
};

testing::Image content_of(const std::string& path) {
  const std::string text = testing::slurp(path);
  const Bytes bytes = as_bytes(text);
  return {bytes.begin(), bytes.end()};
}

}  // namespace

TEST_CASE(
    "I16: a safe rebase of a differencing image leaves what guests read; I17: an unsafe one changes the parent only") {
  for (const DiskFormat format : kDifferencing) {
    CAPTURE(format_name(format));
    const Stack stack(format);
    const std::string before = stack.bytes();
    const testing::Image untouched = content_of(stack.other);
    Operation operation;
    RebaseOptions dry = stack.onto("others/another base");
    dry.dry_run = true;
    const RebaseResult counted = must(rebase_image(stack.overlay, dry, operation.context));
    CHECK(stack.info().backing->path == "base");
    const RebaseResult result = must(rebase_image(stack.overlay, stack.onto("others/another base"), operation.context));
    CHECK(result.bytes_copied > 0);
    CHECK(result.bytes_copied == counted.bytes_copied);
    CHECK(result.from == "base");
    CHECK(stack.info().backing->path == "others/another base");
    std::filesystem::remove(stack.base);
    CHECK(stack.bytes() == before);
    CHECK(stack.check().corruptions + stack.check().leaks == 0);
    CHECK(content_of(stack.other) == untouched);
    // Wherever it lies, and by a longer name: what is there is recorded as it is, what is not as it was.
    const std::string far = stack.directory.file(std::string(200, 'f'));
    must(rebase_image(stack.overlay, stack.onto(far, true), operation.context));
    CHECK(stack.refusal() == ErrorCode::kImageChain);
    std::filesystem::rename(stack.other, far);
    CHECK(stack.bytes() == before);
    must(rebase_image(stack.overlay, stack.onto("./" + std::string(200, 'f'), true), operation.context));
    CHECK(stack.info().backing->path == std::string(200, 'f'));
    CHECK(stack.bytes() == before);
    CHECK(stack.check().corruptions + stack.check().leaks == 0);
    // An unsafe one shows what the new parent has.
    stack.make(stack.base, std::nullopt);
    must(rebase_image(stack.overlay, stack.onto("base", true), operation.context));
    CHECK(stack.bytes() != before);
    CHECK(stack.bytes().substr(1 << 20, 1 << 20) == before.substr(1 << 20, 1 << 20));
  }
}

TEST_CASE(
    "I50: a vhdx whose parent was written since is IMAGE_CHAIN until that is recorded; a vhd's id stays the same") {
  for (const DiskFormat format : kDifferencing) {
    CAPTURE(format_name(format));
    const Stack stack(format);
    write_into(stack.base, format, {{2 << 20, 512, 9}});
    CHECK(stack.refusal() == (format == DiskFormat::kVhdx ? std::optional(ErrorCode::kImageChain) : std::nullopt));
    Operation operation;
    must(rebase_image(stack.overlay, stack.onto("base", true), operation.context));
    CHECK(stack.bytes().substr(2 << 20) == stack.bytes(stack.base).substr(2 << 20));
  }
}

TEST_CASE("I18: a differencing vhd is detached and is a dynamic one then; a vhdx is refused, and stays as it is") {
  const Stack stack(DiskFormat::kVhd);
  const std::string before = stack.bytes();
  Operation operation;
  must(rebase_image(stack.overlay, {.backing = std::nullopt, .format = stack.format}, operation.context));
  std::filesystem::remove(stack.base);
  CHECK_FALSE(stack.info().backing);
  CHECK(stack.bytes() == before);
  CHECK(testing::guest_bytes_by_qemu(stack.overlay, "vpc", stack.directory.file("raw")) == before);
  CHECK(stack.check().corruptions + stack.check().leaks == 0);

  const Stack refused(DiskFormat::kVhdx);
  const testing::Image content = content_of(refused.overlay);
  for (const bool unsafe : {false, true}) {
    const auto outcome =
        rebase_image(refused.overlay, {.backing = "", .format = refused.format, .unsafe = unsafe}, operation.context);
    REQUIRE_FALSE(outcome.ok());
    CHECK(outcome.error().code == ErrorCode::kUnsupported);
    CHECK(outcome.error().message.find("not detached") != std::string::npos);
  }
  CHECK(content_of(refused.overlay) == content);
}

TEST_CASE("I28: a differencing image stands on its own format only, and a dynamic one on nothing") {
  for (const DiskFormat format : kDifferencing) {
    const Stack stack(format);
    Operation operation;
    must(create_image(stack.directory.file("q"), {.size = kStackedDisk, .format = Qcow2Create{}}, operation.context));
    const testing::Image content = content_of(stack.overlay);
    for (const bool unsafe : {false, true}) {
      RebaseOptions options = stack.onto("q", unsafe);
      options.backing_format = DiskFormat::kQcow2;
      CHECK(rebase_image(stack.overlay, options, operation.context).error().code == ErrorCode::kUnsupported);
      CHECK(rebase_image(stack.base, stack.onto("others/another base", unsafe), operation.context).error().code ==
            ErrorCode::kUnsupported);
      CHECK(rebase_image(stack.overlay, stack.onto(std::string(1024, 'n'), unsafe), operation.context).error().code ==
            ErrorCode::kInvalidArgument);
      CHECK(rebase_image(stack.overlay, stack.onto("a\\b", unsafe), operation.context).error().code ==
            ErrorCode::kInvalidArgument);
    }
    CHECK(content_of(stack.overlay) == content);
  }
}

TEST_CASE("I33: a differencing image is committed into its parent, and still stands on it") {
  for (const DiskFormat format : kDifferencing) {
    CAPTURE(format_name(format));
    const Stack stack(format);
    const std::string before = stack.bytes();
    Operation operation;
    // Renamed first, and back: the name keeps its room when the blocks go.
    must(rebase_image(stack.overlay, stack.onto("./base", true), operation.context));
    CHECK(must(commit_image(stack.overlay, {}, operation.context)).bytes_committed == (1 << 20) + 1536);
    CHECK(stack.bytes(stack.base) == before);
    CHECK(stack.bytes() == before);
    CHECK(testing::guest_bytes_by_qemu(stack.base, recorded_name(format), stack.directory.file("raw")) == before);
    const CheckReport report = stack.check();
    CHECK(report.allocated_clusters + report.corruptions + report.leaks == 0);
    // And once more, from the overlay as it is now.
    write_into(stack.overlay, format, {{4096, 512, 8}});
    const std::string again = stack.bytes();
    must(commit_image(stack.overlay, {}, operation.context));
    CHECK(stack.bytes(stack.base) == again);
    CHECK(stack.bytes() == again);
    must(commit_image(stack.overlay, {.overlay = Committed::kRemoved}, operation.context));
    CHECK_FALSE(std::filesystem::exists(stack.overlay));
  }
}

TEST_CASE("a commit past a vhdx in between is refused, for that would no longer open; past a vhd it is done") {
  for (const DiskFormat format : kDifferencing) {
    CAPTURE(format_name(format));
    const Stack stack(format);
    const std::string top = stack.directory.file("top");
    stack.make(top, "overlay");
    write_into(top, format, {{2048, 1024, 7}});
    const std::string before = stack.bytes(top);
    Operation operation;
    const auto outcome = commit_image(top, {.into = "base"}, operation.context);
    CHECK(stack.bytes(top) == before);
    if (format == DiskFormat::kVhdx) {
      REQUIRE_FALSE(outcome.ok());
      CHECK(outcome.error().code == ErrorCode::kUnsupported);
      continue;
    }
    REQUIRE(outcome.ok());
    CHECK(stack.bytes(stack.base) == before);
    CHECK(must(image_info(top, {}, operation.context)).backing->path == "base");
  }
}

TEST_CASE("I35: what differs from a backing is converted into a differencing image over it") {
  for (const DiskFormat format : kDifferencing) {
    CAPTURE(format_name(format));
    const Stack stack(format);
    Operation operation;
    ConvertOptions options;
    options.source_format = format;
    std::get<CreateOptions>(options.target).backing = BackingOption{.path = "others/another base", .format = format};
    if (format == DiskFormat::kVhd) {
      std::get<CreateOptions>(options.target).format = VhdCreate{};
    } else {
      std::get<CreateOptions>(options.target).format = VhdxCreate{};
    }
    const std::string copy = stack.directory.file("copy");
    must(convert_image({stack.overlay}, copy, options, operation.context));
    CHECK(stack.bytes(copy) == stack.bytes());
    CHECK(must(check_image(copy, {}, operation.context)).corruptions == 0);
  }
}

TEST_CASE("I37: a power cut at any write of a rebase of a differencing image leaves what guests read") {
  for (const DiskFormat format : kDifferencing) {
    for (const bool detach : {false, true}) {
      if (detach && format == DiskFormat::kVhdx) continue;
      const Stack stack(format);
      const std::string before = stack.bytes();
      const testing::Image kept = content_of(stack.overlay);
      for (const testing::Surviving surviving :
           {testing::Surviving::kNone, testing::Surviving::kAll, testing::Surviving::kTornPart}) {
        bool cut = true;
        for (std::uint64_t step = 0; cut; ++step) {
          CAPTURE(format_name(format));
          CAPTURE(detach);
          CAPTURE(step);
          testing::put(stack.overlay, kept);
          std::filesystem::resize_file(stack.overlay, kept.size());
          FaultPlan plan{.cut_at = step, .surviving = surviving, .seed = static_cast<unsigned>(step + 1)};
          {
            Operation operation;
            operation.context.wrap_file = [&](std::unique_ptr<File> file) -> std::unique_ptr<File> {
              return std::make_unique<FaultFile>(std::move(file), plan);
            };
            const auto outcome =
                rebase_image(stack.overlay, stack.onto(detach ? "" : "others/another base"), operation.context);
            CHECK(outcome.ok() != plan.cut);
          }
          cut = plan.cut;
          REQUIRE(stack.bytes() == before);
          REQUIRE(stack.check().corruptions == 0);
        }
      }
    }
  }
}

TEST_CASE("I37: a power cut at any write of a commit leaves what guests read, or a vhdx that is told its parent anew") {
  for (const DiskFormat format : kDifferencing) {
    const Stack stack(format);
    const std::string before = stack.bytes();
    const testing::Image kept = content_of(stack.overlay);
    const testing::Image kept_base = content_of(stack.base);
    bool cut = true;
    for (std::uint64_t step = 0; cut; ++step) {
      CAPTURE(format_name(format));
      CAPTURE(step);
      testing::put(stack.overlay, kept);
      testing::put(stack.base, kept_base);
      FaultPlan plan{
          .cut_at = step, .surviving = testing::Surviving::kTornPart, .seed = static_cast<unsigned>(step + 1)};
      Operation faulty;
      faulty.context.wrap_file = [&](std::unique_ptr<File> file) -> std::unique_ptr<File> {
        return std::make_unique<FaultFile>(std::move(file), plan);
      };
      CHECK(commit_image(stack.overlay, {}, faulty.context).ok() != plan.cut);
      cut = plan.cut;
      Operation operation;
      if (stack.refusal()) {
        REQUIRE(format == DiskFormat::kVhdx);
        REQUIRE(stack.refusal() == ErrorCode::kImageChain);
        must(rebase_image(stack.overlay, stack.onto("base", true), operation.context));
      }
      REQUIRE(stack.bytes() == before);
      REQUIRE(stack.check().corruptions == 0);
      REQUIRE(must(check_image(stack.base, {.format = format}, operation.context)).corruptions == 0);
    }
  }
}

}  // namespace sluicebox::image
