#include "image/ops/check.h"
#include "image/ops/commit.h"
#include "image/ops/create.h"
#include "image/ops/open_image.h"
#include "image/ops/resize.h"
#include "test/image/format_resize.h"
#include "test/image/operation.h"
#include "test/image/vhdx_fixture.h"

namespace sluicebox::image::vhdx {
namespace {

using testing::ImageResize;
using testing::Operation;

constexpr std::uint64_t kDiskSizeAt = kMetadataAt + kMetadataTableBytes + 8;
constexpr std::uint64_t kGiB = 1u << 30;
// Of blocks of 1 MiB, as many as a table of 1 MiB tells of; 4,096 are a chunk.
constexpr std::uint64_t kMostInTable = 131072 - 131072 / 4097;

Image filled(const PlanOptions& options, std::initializer_list<std::pair<std::uint64_t, std::uint64_t>> ranges) {
  MemoryFile file(planned(options));
  auto block = open_writable(file);
  for (const auto& [offset, length] : ranges) must(block->write(offset, testing::pattern(length, offset + 1)));
  must(block->flush());
  return file.bytes();
}

// As another tool may leave it, or one that was killed: entries, and bytes of the last block, beyond the disk's end.
Image with_rest(Image image, std::uint64_t size) {
  store_le64(image.data() + kDiskSizeAt, size);
  return image;
}

PlanOptions in_sectors_of_4096(PlanOptions options) {
  options.sector_size = 4096;
  return options;
}

Image parent_of(std::uint64_t size) { return filled(disk(size), {{0, size}}); }

std::vector<ImageResize> vhdx_growths() {
  const PlanOptions child = over(disk(2 * kMiB + 1024), "parent");
  const PlanOptions large_child = over(disk(6 * kMiB), "parent");
  std::vector<ImageResize> all;
  all.push_back({"within its last block", filled(disk(3 * kMiB + 512), {{3 * kMiB, 512}}), 3 * kMiB + 4096});
  all.push_back({"that has nothing", planned(disk(512)), 4 * kMiB});
  all.push_back({"with what a shrink left",
                 with_rest(filled(disk(5 * kMiB), {{0, 5 * kMiB}}), 2 * kMiB + 512),
                 7 * kMiB + 512,
                 {},
                 true});
  all.push_back({"in large blocks, with what a shrink left",
                 with_rest(filled(disk(12 * kMiB, 4 * kMiB), {{2 * kMiB, 9 * kMiB}}), 5 * kMiB),
                 13 * kMiB,
                 {},
                 true});
  all.push_back({"fixed", filled(disk(2 * kMiB - 512, kMiB, true), {{0, 2 * kMiB - 512}}), 5 * kMiB + 512});
  all.push_back({"fixed, with what a shrink left",
                 with_rest(filled(disk(3 * kMiB, kMiB, true), {{0, 3 * kMiB}}), kMiB + 1024), 4 * kMiB});
  all.push_back({"in sectors of 4096", filled(in_sectors_of_4096(disk(3 * kMiB + 4096)), {{kMiB, 2 * kMiB + 4096}}),
                 5 * kMiB + 8192});
  all.push_back(
      {"over a larger parent", filled(child, {{512, 1024}, {2 * kMiB, 512}}), 4 * kMiB + 512, parent_of(6 * kMiB)});
  all.push_back({"over a larger parent, with what a shrink left",
                 with_rest(filled(large_child, {{kMiB, 2 * kMiB}, {5 * kMiB + 512, 512}}), 2 * kMiB + 1024), 8 * kMiB,
                 parent_of(7 * kMiB), true});
  all.push_back({"over a larger parent, whose last block here is zeros",
                 [&] {
                   MemoryFile file(planned(child));
                   auto block = open_writable(file);
                   must(block->write_zeros(2 * kMiB, 1024));
                   must(block->flush());
                   return file.bytes();
                 }(),
                 5 * kMiB, parent_of(6 * kMiB)});
  all.push_back({"past what its table has room for",
                 filled(disk(kMostInTable * kMiB), {{0, 4096}, {(kMostInTable - 1) * kMiB, kMiB}}),
                 (kMostInTable + 1) * kMiB});
  return all;
}

std::vector<ImageResize> vhdx_shrinkings() {
  std::vector<ImageResize> all;
  all.push_back({"to the end of a block", filled(disk(4 * kMiB), {{0, 4 * kMiB}}), kMiB});
  all.push_back({"to within a block", filled(disk(4 * kMiB, 2 * kMiB), {{0, 4 * kMiB}}), kMiB + 512});
  all.push_back({"that has nothing", planned(disk(4 * kMiB)), 512});
  all.push_back(
      {"whose blocks are out of order", filled(disk(4 * kMiB), {{3 * kMiB, kMiB}, {0, 512}}), 2 * kMiB, {}, true});
  all.push_back({"fixed", filled(disk(4 * kMiB, kMiB, true), {{0, 4 * kMiB}}), 2 * kMiB - 512});
  all.push_back({"in sectors of 4096", filled(in_sectors_of_4096(disk(4 * kMiB)), {{0, 4 * kMiB}}), 2 * kMiB - 4096});
  all.push_back({"over a parent",
                 filled(over(disk(5 * kMiB), "parent"), {{512, 512}, {kMiB, kMiB}, {3 * kMiB + 512, 4096}}), kMiB + 512,
                 parent_of(6 * kMiB)});
  return all;
}

}  // namespace

TEST_CASE("I34: a vhdx that grew reads as before, and zeros behind, and one that shrank as its beginning") {
  const testing::TempDir directory;
  const std::string path = directory.file("a.vhdx");
  for (const bool shrink : {false, true}) {
    for (const ImageResize& each : shrink ? vhdx_shrinkings() : vhdx_growths()) {
      CAPTURE(each.what);
      const Image after = testing::resized(each, open_either);
      CHECK((!shrink || each.leaks || each.start.size() == planned(disk(4 * kMiB)).size() ||
             after.size() < each.start.size()));
      MemoryFile file(after);
      if (!each.parent.empty() || open_readable(file)->allocation_unit() != 512) continue;  // QEMU knows neither
      testing::put(path, after);
      const testing::RunResult checked = testing::qemu_img({"check", "-f", "vhdx", path});
      CAPTURE(checked.output);
      CHECK(checked.exit_code == 0);
      testing::require_qemu_agrees("vhdx", each, after, open_either);
    }
  }
}

TEST_CASE("I34 I37: killed at any write or sync of its resize, a vhdx is of the old size or of the new one") {
  for (const ImageResize& each : vhdx_growths()) testing::survive_resize(each, open_either);
  for (const ImageResize& each : vhdx_shrinkings()) testing::survive_resize(each, open_either);
}

TEST_CASE("I38: a resize of a vhdx that fails midway is a typed error, and the disk is as before or as after") {
  for (const ImageResize& each : vhdx_growths()) testing::fail_resize(each, open_either);
  for (const ImageResize& each : vhdx_shrinkings()) testing::fail_resize(each, open_either);
}

TEST_CASE("I34: a vhdx whose table was moved is written, checked and resized again, and qemu-img agrees") {
  const testing::TempDir directory;
  const std::string path = directory.file("a.vhdx");
  const PlanOptions options = disk(kMostInTable * kMiB);
  Image start = filled(options, {{0, 4096}, {(kMostInTable - 1) * kMiB, kMiB}});
  // One of the two tells the truth; both do afterwards.
  start[kRegionTableOffsets[0] + 5] ^= std::byte{1};
  testing::put(path, start);
  Operation operation({"/"});
  must(resize_image(path, {.size = 300 * kGiB}, operation.context));
  {
    const auto image = must(OpenImage::open(path, {}, operation.context));
    must(image->write(300 * kGiB - 4096, testing::pattern(4096, 5)));
    must(image->close());
  }
  testing::qemu_io(path, "vhdx", {"write -P 0x44 200G 64k"});
  CHECK(testing::qemu_img({"check", "-f", "vhdx", path}).exit_code == 0);
  must(resize_image(path, {.size = 600 * kGiB}, operation.context));
  const auto image = must(OpenImage::open(path, {}, operation.context));
  Image bytes(4096);
  must(image->read(0, bytes));
  CHECK(bytes == testing::pattern(4096, 1));
  must(image->read(300 * kGiB - 4096, bytes));
  CHECK(bytes == testing::pattern(4096, 5));
  must(image->read(200 * kGiB, bytes));
  CHECK(bytes == Image(4096, std::byte{0x44}));
  must(image->read(300 * kGiB, bytes));
  CHECK(all_zero(bytes));
  must(image->close());
  CHECK(testing::qemu_io(path, "vhdx", {"read -P 0x44 200G 64k", "read -P 0 500G 1M"}).output.find("failed") ==
        std::string::npos);
  CHECK(must(check_image(path, {}, operation.context)).corruptions == 0);
  CHECK(testing::qemu_img({"check", "-f", "vhdx", path}).exit_code == 0);
  // What lay beyond goes, and the moved table stays.
  must(resize_image(path, {.size = 8 * kMiB, .shrink = true}, operation.context));
  const CheckReport report = must(check_image(path, {}, operation.context));
  CHECK(report.corruptions == 0);
  CHECK(report.allocated_clusters == 1);
}

TEST_CASE("I34: a size that a vhdx cannot have, or preallocation, is refused, and nothing is written") {
  const auto refused = [](const Image& start, const ResizeOptions& options, ErrorCode code, const char* says) {
    const testing::TempDir directory;
    const std::string path = directory.file("a.vhdx");
    testing::put(path, start);
    Operation operation;
    const auto result = resize_image(path, options, operation.context);
    REQUIRE_FALSE(result.ok());
    CAPTURE(result.error().message);
    CHECK(result.error().code == code);
    CHECK(result.error().message.find(says) != std::string::npos);
    const std::string now = testing::slurp(path);
    CHECK((std::memcmp(now.data(), start.data(), start.size()) == 0 && now.size() == start.size()));
  };
  const Image small = planned(disk(2 * kMiB));
  refused(small, {.size = kMiB}, ErrorCode::kInvalidArgument, "shrink: ");
  refused(small, {.size = 0, .shrink = true}, ErrorCode::kInvalidArgument, "one sector");
  refused(small, {.size = kMaxDiskBytes + 512}, ErrorCode::kInvalidArgument, "64 TiB");
  refused(small, {.size = ~std::uint64_t{0} - 1023}, ErrorCode::kInvalidArgument, "64 TiB");
  // 2^24 entries, of which one in 4,097 is a bitmap's.
  refused(small, {.size = kMaxDiskBytes}, ErrorCode::kUnsupported, std::to_string(16773121 * kMiB).c_str());
  refused(planned(in_sectors_of_4096(disk(2 * kMiB))), {.size = 3 * kMiB + 512}, ErrorCode::kInvalidArgument,
          "sectors of 4096");
  for (const Preallocation each : {Preallocation::kMetadata, Preallocation::kFalloc, Preallocation::kFull}) {
    refused(small, {.size = 3 * kMiB, .preallocation = each}, ErrorCode::kUnsupported, "preallocation: ");
  }
  Image damaged = filled(disk(2 * kMiB), {{0, 512}});
  set_table_entry(damaged, 1, table_entry(damaged, 0));
  refused(damaged, {.size = 3 * kMiB}, ErrorCode::kImageCorrupt, "damaged");
}

TEST_CASE("I34: the largest table that is read can be grown to, and a cancelled growth gives its space back") {
  MemoryFile file(planned(disk(2 * kMiB)));
  {
    auto block = open_writable(file);
    must(block->make_room(16773121 * kMiB));
    must(block->resize(16773121 * kMiB));
  }
  CHECK(open_readable(file)->size() == 16773121 * kMiB);
  CHECK(testing::check(*open_readable(file)).corruptions == 0);

  MemoryFile fixed(filled(disk(2 * kMiB, kMiB, true), {{0, 2 * kMiB}}));
  const std::size_t length = fixed.bytes().size();
  const Image table = {fixed.bytes().begin() + kTableAt, fixed.bytes().begin() + kTableAt + kMiB};
  auto block = open_writable(fixed);
  must(block->make_room(9 * kMiB));
  must(block->write(8 * kMiB, testing::pattern(512, 1)));
  must(block->flush());
  CHECK(fixed.bytes().size() == length + 7 * kMiB);
  block->abandon();
  CHECK(fixed.bytes().size() == length);
  CHECK(std::ranges::equal(table, Bytes(fixed.bytes()).subspan(kTableAt, kMiB)));
  CHECK(testing::check(*open_readable(fixed)).corruptions == 0);
}

TEST_CASE("I34: a resize changes what a vhdx is known by, so that no overlay shows a parent of another size") {
  MemoryFile file(planned(disk(2 * kMiB)));
  const Header old = newest_header(file.bytes());
  must(open_writable(file)->resize(kMiB));
  CHECK(newest_header(file.bytes()).data_write != old.data_write);
  CHECK(is_nil(newest_header(file.bytes()).log));
}

TEST_CASE("I33: a vhdx base that is too small grows, and reads as its overlay did") {
  const testing::TempDir directory;
  Operation operation({"/"});
  const std::string base = directory.file("base"), overlay = directory.file("overlay");
  testing::put(base, filled(disk(2 * kMiB + 512), {{kMiB, kMiB + 512}}));
  must(create_image(overlay,
                    {.size = 5 * kMiB,
                     .backing = BackingOption{.path = "base", .format = DiskFormat::kVhdx},
                     .format = VhdxCreate{.block_size = kMiB}},
                    operation.context));
  {
    const auto image = must(OpenImage::open(overlay, {}, operation.context));
    must(image->write(2 * kMiB, testing::pattern(2 * kMiB, 3)));
    must(image->close());
  }
  const auto before = must(testing::guest_bytes(overlay, DiskFormat::kVhdx));
  must(commit_image(overlay, {}, operation.context));
  CHECK((must(testing::guest_bytes(overlay, DiskFormat::kVhdx)) == before));
  CHECK((must(testing::guest_bytes(base, DiskFormat::kVhdx)) == before));
  CHECK(must(check_image(base, {}, operation.context)).corruptions == 0);
}

}  // namespace sluicebox::image::vhdx
