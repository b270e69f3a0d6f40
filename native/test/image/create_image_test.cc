#include <doctest/doctest.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "image/ops/check.h"
#include "image/ops/create.h"
#include "image/ops/info.h"
#include "image/ops/new_file.h"
#include "test/image/fault_file.h"
#include "test/image/operation.h"
#include "test/image/qemu.h"
#include "test/image/temp_dir.h"

namespace sluicebox::image {
namespace {

using testing::FaultFile;
using testing::FaultPlan;
using testing::Operation;
using testing::TempDir;

CreateOptions qcow2_of(std::optional<std::uint64_t> size, Qcow2Create format = {}) {
  return {.size = size, .overwrite = false, .backing = std::nullopt, .format = format};
}

std::vector<std::string> files_in(const TempDir& directory) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(directory.path())) {
    names.push_back(entry.path().filename().string());
  }
  std::ranges::sort(names);
  return names;
}

void write_text(const std::string& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

}  // namespace

TEST_CASE("I13: an existing file is never replaced without overwrite, and stays whole") {
  const TempDir directory;
  const std::string path = directory.file("a.qcow2");
  write_text(path, "precious");
  Operation operation;
  CHECK(create_image(path, qcow2_of(1 << 20), operation.context).error().code == ErrorCode::kImageExists);
  CHECK(testing::slurp(path) == "precious");
  CreateOptions options = qcow2_of(1 << 20);
  options.overwrite = true;
  CHECK(create_image(path, options, operation.context).ok());
  CHECK(image_info(path, {}, operation.context).value().virtual_bytes == 1 << 20);
  CHECK(files_in(directory) == std::vector<std::string>{"a.qcow2"});
}

TEST_CASE("I13: a file that appears meanwhile, also a dangling symlink, is not replaced") {
  for (const NewFile::Staging staging : {NewFile::Staging::kAnonymous, NewFile::Staging::kNamed}) {
    const TempDir directory;
    const std::string path = directory.file("a");
    {
      Operation operation;
      NewFile made = NewFile::begin(path, false, operation.context, staging).value();
      REQUIRE(made.file().write_at(0, as_bytes("new")).ok());
      write_text(path, "appeared");
      CHECK(made.publish(operation.cancel).error().code == ErrorCode::kImageExists);
    }
    CHECK(testing::slurp(path) == "appeared");
    CHECK(files_in(directory) == std::vector<std::string>{"a"});
    std::filesystem::create_symlink("nowhere", directory.file("link"));
    Operation operation;
    NewFile made = NewFile::begin(directory.file("link"), false, operation.context, staging).value();
    CHECK(made.publish(operation.cancel).error().code == ErrorCode::kImageExists);
  }
}

TEST_CASE("I56: under the final name there is the old file or the whole new one, whatever the staging") {
  for (const NewFile::Staging staging : {NewFile::Staging::kAnonymous, NewFile::Staging::kNamed}) {
    for (const bool overwrite : {false, true}) {
      const TempDir directory;
      const std::string path = directory.file("a");
      if (overwrite) write_text(path, "old");
      Operation operation;
      {
        NewFile made = NewFile::begin(path, overwrite, operation.context, staging).value();
        REQUIRE(made.file().write_at(0, as_bytes("new")).ok());
        CHECK(std::filesystem::exists(path) == overwrite);
        REQUIRE(made.publish(operation.cancel).ok());
      }
      CHECK(testing::slurp(path) == "new");
      CHECK(files_in(directory) == std::vector<std::string>{"a"});
    }
  }
}

TEST_CASE("I13: cancelled or failed at any write or sync, create leaves no new file and the old one whole") {
  for (const bool raw : {false, true}) {
    for (const bool overwrite : {false, true}) {
      bool reached = true;
      for (std::uint64_t n = 0; reached; ++n) {
        REQUIRE(n < 1000);
        for (const bool full : {false, true}) {
          CAPTURE(n);
          const TempDir directory;
          const std::string path = directory.file("a");
          if (overwrite) write_text(path, "old");
          FaultPlan plan;
          (full ? plan.full_at : plan.cut_at) = n;
          Operation operation;
          operation.context.wrap_file = [&plan](std::unique_ptr<File> file) -> std::unique_ptr<File> {
            return std::make_unique<FaultFile>(std::move(file), plan);
          };
          CreateOptions options = qcow2_of(8 << 20, {.cluster_size = 4096, .preallocation = Preallocation::kMetadata});
          if (raw) options.format = RawCreate{.preallocation = Preallocation::kFull};
          options.overwrite = overwrite;
          const Result<ImageInfo> made = create_image(path, options, operation.context);
          if (!full) reached = plan.reached;
          if (!plan.reached) {
            CHECK(made.ok());
            continue;
          }
          CHECK(made.error().code == (full ? ErrorCode::kNoSpace : ErrorCode::kIo));
          CHECK(files_in(directory) == (overwrite ? std::vector<std::string>{"a"} : std::vector<std::string>{}));
          if (overwrite) CHECK(testing::slurp(path) == "old");
        }
      }
    }
  }
}

TEST_CASE("I13 I53: a cancelled create leaves nothing") {
  const TempDir directory;
  Operation operation;
  operation.progress.on_report = [&](const ProgressReport&) { operation.cancel.cancel(); };
  CreateOptions options = qcow2_of(64 << 20);
  options.format = RawCreate{.preallocation = Preallocation::kFull};
  CHECK(create_image(directory.file("a"), options, operation.context).error().code == ErrorCode::kCancelled);
  CHECK(files_in(directory).empty());
}

TEST_CASE("I13: overwriting through a symlink replaces the file that it leads to, and keeps the link") {
  const TempDir directory;
  write_text(directory.file("a"), "old");
  std::filesystem::create_symlink("a", directory.file("link"));
  CreateOptions options = qcow2_of(1 << 20);
  options.overwrite = true;
  Operation operation;
  REQUIRE(create_image(directory.file("link"), options, operation.context).ok());
  CHECK(std::filesystem::is_symlink(directory.file("link")));
  CHECK(image_info(directory.file("a"), {}, operation.context).value().virtual_bytes == 1 << 20);
}

TEST_CASE("I39: an image in use is not replaced") {
  const TempDir directory;
  const std::string path = directory.file("a.qcow2");
  Operation operation;
  REQUIRE(create_image(path, qcow2_of(1 << 20), operation.context).ok());
  CreateOptions options = qcow2_of(2 << 20);
  options.overwrite = true;
  {
    const Layer held = open_layer(path, std::nullopt, Access::kRead, operation.context).value();
    CHECK(create_image(path, options, operation.context).error().code == ErrorCode::kImageLocked);
  }
  CHECK(create_image(path, options, operation.context).value().virtual_bytes == 2 << 20);
}

TEST_CASE("the size is the backing's when none is given, and is required without one") {
  const TempDir directory;
  Operation operation;
  const Error error = create_image(directory.file("a"), qcow2_of(std::nullopt), operation.context).error();
  CHECK(error.code == ErrorCode::kInvalidArgument);
  CHECK(error.message.find("size") != std::string::npos);
  std::ofstream(directory.file("base.raw")) << std::string(3 << 20, 'x');
  CreateOptions options = qcow2_of(std::nullopt);
  options.backing = BackingOption{.path = "base.raw", .format = DiskFormat::kRaw};
  const ImageInfo info = create_image(directory.file("a"), options, operation.context).value();
  CHECK(info.virtual_bytes == 3 << 20);
  CHECK(info.backing->path == "base.raw");
  CHECK(info.backing->resolved_path == directory.file("base.raw"));
  CHECK(info.backing->exists);
  CHECK(testing::guest_bytes(directory.file("a"), DiskFormat::kQcow2).value() == std::string(3 << 20, 'x'));
  CHECK(testing::guest_bytes_by_qemu(directory.file("a"), "qcow2", directory.file("s")) == std::string(3 << 20, 'x'));
}

TEST_CASE("I21 I25 I26: a missing, endless or self-referring backing is refused, and nothing is created") {
  const TempDir directory;
  Operation operation;
  const auto over = [&](const std::string& name, const std::string& backing, bool overwrite = false) {
    CreateOptions options = qcow2_of(1 << 20);
    options.overwrite = overwrite;
    options.backing = BackingOption{.path = backing, .format = DiskFormat::kQcow2};
    return create_image(directory.file(name), options, operation.context);
  };
  CHECK(over("a", "none").error().code == ErrorCode::kImageNotFound);
  CHECK(files_in(directory).empty());
  REQUIRE(create_image(directory.file("c0"), qcow2_of(1 << 20), operation.context).ok());
  for (int i = 1; i < 16; ++i) REQUIRE(over("c" + std::to_string(i), "c" + std::to_string(i - 1)).ok());
  CHECK(over("c16", "c15").error().code == ErrorCode::kImageChain);
  CHECK(over("c0", "c1", true).error().code == ErrorCode::kImageChain);
  CHECK(over("c0", "c0", true).error().code == ErrorCode::kImageChain);
  CHECK(files_in(directory).size() == 16);
}

TEST_CASE("I9: options that no image can have are invalid arguments by name") {
  const TempDir directory;
  const auto refused = [&](const CreateOptions& options, const char* named, ErrorCode code) {
    CAPTURE(named);
    Operation operation;
    const Error error = create_image(directory.file("a"), options, operation.context).error();
    CHECK(error.code == code);
    CHECK(error.message.find(named) != std::string::npos);
    CHECK(files_in(directory).empty());
  };
  refused(qcow2_of(1 << 20, {.cluster_size = 1000}), "clusterSize", ErrorCode::kInvalidArgument);
  refused(qcow2_of(1 << 20, {.refcount_bits = 3}), "refcountBits", ErrorCode::kInvalidArgument);
  refused(qcow2_of(1 << 20, {.version = 2, .lazy_refcounts = true}), "lazyRefcounts", ErrorCode::kInvalidArgument);
  refused(qcow2_of(1 << 20, {.version = 2, .zstd = true}), "zstd", ErrorCode::kInvalidArgument);
  refused(qcow2_of(1 << 20, {.cluster_size = 8192, .extended_l2 = true}), "extendedL2", ErrorCode::kInvalidArgument);
  refused(qcow2_of(UINT64_MAX), "size", ErrorCode::kInvalidArgument);
  refused(qcow2_of((std::uint64_t{1} << 63) - 1), "size", ErrorCode::kInvalidArgument);
  CreateOptions raw = qcow2_of(512);
  raw.format = RawCreate{.preallocation = Preallocation::kMetadata};
  refused(raw, "preallocation", ErrorCode::kInvalidArgument);
  raw.format = RawCreate{};
  raw.backing = BackingOption{.path = "b", .format = DiskFormat::kRaw};
  refused(raw, "backing", ErrorCode::kInvalidArgument);
}

TEST_CASE("I10: sizes 0, 1, unaligned and near the limits are images or typed errors") {
  for (const std::uint64_t size : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{511}, std::uint64_t{513},
                                   std::uint64_t{1} << 40, (std::uint64_t{1} << 47) - 1, std::uint64_t{1} << 63,
                                   (std::uint64_t{1} << 63) - 512, UINT64_MAX - 100, UINT64_MAX}) {
    for (const bool raw : {false, true}) {
      CAPTURE(size);
      CAPTURE(raw);
      const TempDir directory;
      Operation operation;
      CreateOptions options = qcow2_of(size);
      if (raw) options.format = RawCreate{};
      const std::string path = directory.file("a");
      const Result<ImageInfo> made = create_image(path, options, operation.context);
      if (!made.ok()) {
        CHECK((made.error().code == ErrorCode::kInvalidArgument || made.error().code == ErrorCode::kNoSpace));
        CHECK(files_in(directory).empty());
        continue;
      }
      CHECK(made.value().virtual_bytes == (size + 511) / 512 * 512);
      CHECK(image_info(path, {}, operation.context).value().virtual_bytes == made.value().virtual_bytes);
    }
  }
}

TEST_CASE("I15: preallocation allocates what it says, by block count") {
  constexpr std::uint64_t kSize = 16 << 20;
  struct Case {
    Preallocation preallocation;
    bool allocates_data;
  };
  for (const auto& [preallocation, allocates] :
       {Case{Preallocation::kOff, false}, Case{Preallocation::kMetadata, false}, Case{Preallocation::kFalloc, true},
        Case{Preallocation::kFull, true}}) {
    for (const bool raw : {false, true}) {
      if (raw && preallocation == Preallocation::kMetadata) continue;
      CAPTURE(raw);
      CAPTURE(static_cast<int>(preallocation));
      const TempDir directory;
      const std::string path = directory.file("a");
      CreateOptions options = qcow2_of(kSize, {.preallocation = preallocation});
      if (raw) options.format = RawCreate{.preallocation = preallocation};
      Operation operation;
      const ImageInfo info = create_image(path, options, operation.context).value();
      struct stat status = {};
      REQUIRE(::stat(path.c_str(), &status) == 0);
      const auto allocated = static_cast<std::uint64_t>(status.st_blocks) * 512;
      CHECK(info.allocated_bytes == allocated);
      if (allocates) {
        CHECK(allocated >= kSize);
      } else {
        CHECK(allocated < 1 << 20);
      }
      if (raw) continue;
      CHECK(testing::qemu_img({"check", path}).exit_code == 0);
      const CheckReport report = check_image(path, {}, operation.context).value();
      CHECK(report.corruptions + report.leaks == 0);
      CHECK(report.allocated_clusters == (preallocation == Preallocation::kOff ? 0 : kSize / 65536));
      CHECK(testing::guest_bytes_by_qemu(path, "qcow2", directory.file("s")) == std::string(kSize, '\0'));
    }
  }
}

TEST_CASE("a new image has the mode that the umask leaves, as other files of the user have") {
  const TempDir directory;
  const mode_t before = ::umask(027);
  Operation operation;
  REQUIRE(create_image(directory.file("a"), qcow2_of(512), operation.context).ok());
  ::umask(before);
  struct stat status = {};
  REQUIRE(::stat(directory.file("a").c_str(), &status) == 0);
  CHECK((status.st_mode & 07777) == 0640);
}

TEST_CASE("I41: callers who are restricted create only inside of the allowed directories") {
  const TempDir inside, outside;
  Operation operation({inside.path()}, true);
  CHECK(create_image(inside.file("a"), qcow2_of(512), operation.context).ok());
  CHECK(create_image(outside.file("a"), qcow2_of(512), operation.context).error().code == ErrorCode::kPathRefused);
  CHECK(files_in(outside).empty());
}

}  // namespace sluicebox::image
