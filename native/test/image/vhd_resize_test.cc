#include "image/ops/check.h"
#include "image/ops/commit.h"
#include "image/ops/create.h"
#include "image/ops/open_image.h"
#include "image/ops/resize.h"
#include "test/image/format_resize.h"
#include "test/image/operation.h"
#include "test/image/vhd_fixture.h"

namespace sluicebox::image::vhd {
namespace {

using testing::ImageResize;
using testing::Operation;

// A table of one sector tells of 128 blocks.
constexpr std::uint64_t kTiny = 4096, kSectorOfTable = 128;

Image written(Image start, std::initializer_list<std::pair<std::uint64_t, std::uint64_t>> ranges) {
  MemoryFile file(std::move(start));
  auto block = open_writable(file);
  for (const auto& [offset, length] : ranges) must(block->write(offset, testing::pattern(length, offset + 1)));
  must(block->flush());
  return file.bytes();
}

// In blocks of 4 KiB, which are read, but not made.
Image tiny_disk(std::uint64_t blocks, const char* parent = nullptr) {
  const PlanOptions options = dynamic_disk(blocks * kSmallBlock);
  Image image = planned(parent == nullptr ? options : over(options, parent));
  edit_header(image, [](DynamicHeader& header) { header.block_size = kTiny; });
  edit_footers(image, [&](Footer& footer) { footer.current_size = blocks * kTiny; });
  return image;
}

// As another tool may leave it, or one that was killed: entries, and bytes of the last block, beyond the disk's end.
Image with_rest(Image image, std::uint64_t size) {
  edit_footers(image, [&](Footer& footer) { footer.current_size = size; });
  return image;
}

// The disk is of a geometry's size, as that of Virtual PC and of QEMU.
Image by_geometry(Image image, const char* creator) {
  const auto change = [&](Footer& footer) {
    footer.creator = creator;
    footer.geometry = {.cylinders = 4, .heads = 4, .sectors = 17};
  };
  if (must(parse_footer(Bytes(image).last(kFooterBytes))).type == DiskType::kFixed) {
    edit_footer(image, image.size() - kFooterBytes, change);
  } else {
    edit_footers(image, change);
  }
  return image;
}
constexpr std::uint64_t kOfGeometry = std::uint64_t{4} * 4 * 17 * 512;

std::vector<ImageResize> vhd_growths() {
  const Image parent = written(tiny_disk(60), {{0, 60 * kTiny}});
  std::vector<ImageResize> all;
  all.push_back({"within its last block", written(planned(dynamic_disk(kSmallBlock + 512)), {{kSmallBlock, 512}}),
                 kSmallBlock + 4096});
  all.push_back({"that has nothing", planned(dynamic_disk(512)), 3 * kSmallBlock});
  all.push_back({"empty", planned(dynamic_disk(0)), kSmallBlock});
  all.push_back({"with what a shrink left",
                 with_rest(written(tiny_disk(40), {{0, 40 * kTiny}}), 20 * kTiny + 512),
                 50 * kTiny + 512,
                 {},
                 true});
  all.push_back(
      {"within the sector of its table", written(tiny_disk(100), {{kTiny, 99 * kTiny}}), kSectorOfTable * kTiny});
  all.push_back({"past the sector of its table, where blocks lie",
                 written(tiny_disk(100), {{0, 10 * kTiny}, {99 * kTiny + 512, 1024}}), 300 * kTiny + 512});
  all.push_back({"past the sector of its table, where nothing lies", tiny_disk(100), 300 * kTiny});
  all.push_back({"over a larger parent", written(tiny_disk(20, "parent"), {{512, 1024}, {19 * kTiny, 1024}}),
                 50 * kTiny + 512, parent});
  all.push_back({"over a larger parent, with what a shrink left",
                 with_rest(written(tiny_disk(40, "parent"), {{0, 1024}, {18 * kTiny, 10 * kTiny}}), 20 * kTiny + 512),
                 150 * kTiny, parent, true});
  all.push_back({"of a geometry", written(by_geometry(tiny_disk(40), "vpc "), {{0, kOfGeometry}}), 50 * kTiny});
  all.push_back({"fixed", written(planned(fixed_disk(8 * kTiny)), {{0, 8 * kTiny}}), 20 * kTiny + 512});
  all.push_back({"fixed, by a sector", written(planned(fixed_disk(8 * kTiny)), {{0, 8 * kTiny}}), 8 * kTiny + 512});
  all.push_back({"fixed, of a geometry, into what lies behind",
                 written(by_geometry(planned(fixed_disk(kOfGeometry + 2048)), "qemu"), {{0, kOfGeometry}}),
                 kOfGeometry + 512});
  all.push_back({"fixed, of a geometry, to its footer",
                 written(by_geometry(planned(fixed_disk(kOfGeometry + 2048)), "qemu"), {{0, kOfGeometry}}),
                 kOfGeometry + 2048});
  all.push_back({"fixed, of a geometry, past its footer",
                 written(by_geometry(planned(fixed_disk(kOfGeometry + 2048)), "qemu"), {{0, kOfGeometry}}),
                 kOfGeometry + 4096});
  return all;
}

std::vector<ImageResize> vhd_shrinkings() {
  const Image parent = written(tiny_disk(60), {{0, 60 * kTiny}});
  std::vector<ImageResize> all;
  all.push_back({"to the end of a block", written(tiny_disk(200), {{0, 200 * kTiny}}), 10 * kTiny});
  all.push_back({"to within a block", written(tiny_disk(200), {{0, 200 * kTiny}}), 140 * kTiny + 512});
  all.push_back({"that has nothing", tiny_disk(40), 512});
  all.push_back(
      {"whose blocks are out of order", written(tiny_disk(40), {{30 * kTiny, kTiny}, {0, 512}}), 2 * kTiny, {}, true});
  all.push_back({"over a parent", written(tiny_disk(40, "parent"), {{512, 512}, {kTiny, kTiny}, {30 * kTiny, 512}}),
                 kTiny + 512, parent});
  all.push_back({"of a geometry", written(by_geometry(tiny_disk(40), "vpc "), {{0, kOfGeometry}}), 5 * kTiny});
  all.push_back({"fixed", written(planned(fixed_disk(20 * kTiny)), {{0, 20 * kTiny}}), 8 * kTiny - 512});
  all.push_back({"fixed, of a geometry",
                 written(by_geometry(planned(fixed_disk(kOfGeometry + 2048)), "qemu"), {{0, kOfGeometry}}), 5 * kTiny});
  return all;
}

bool is_fixed(const Image& image) {
  return must(parse_footer(Bytes(image).last(kFooterBytes))).type == DiskType::kFixed;
}

}  // namespace

TEST_CASE("I34: a vhd that grew reads as before, and zeros behind, and one that shrank as its beginning") {
  for (const bool shrink : {false, true}) {
    for (const ImageResize& each : shrink ? vhd_shrinkings() : vhd_growths()) {
      CAPTURE(each.what);
      const Image after = testing::resized(each, open_either);
      if (shrink && each.start != tiny_disk(40) && !each.leaks) CHECK(after.size() < each.start.size());
      MemoryFile file(after);
      CHECK(must(probe_vhd(file)));
      // Both footers say the same, and neither that it is on its way.
      const Footer end = must(parse_footer(Bytes(after).last(kFooterBytes)));
      CHECK(end.stands_at == 0);
      CHECK(end.current_size == each.size);
      CHECK(end.original_size == each.size);
      if (!is_fixed(after)) {
        // Others take no table of more blocks.
        const DynamicHeader header = must(parse_dynamic_header(Bytes(after).subspan(kFooterBytes, kHeaderBytes)));
        CHECK(header.max_entries == div_round_up(each.size, header.block_size));
      }
      if (!is_fixed(after)) CHECK(std::ranges::equal(end.raw, Bytes(after).first(kFooterBytes)));
      // QEMU does not know what a parent is.
      if (each.parent.empty()) testing::require_qemu_agrees("vpc", each, after, open_either);
    }
  }
}

TEST_CASE("I34 I37: killed at any write or sync of its resize, a vhd is of the old size or of the new one") {
  for (const ImageResize& each : vhd_growths()) testing::survive_resize(each, open_either);
  for (const ImageResize& each : vhd_shrinkings()) testing::survive_resize(each, open_either);
}

TEST_CASE("I37: killed at any write or sync of its resize, a fixed vhd is known for a vhd by nobody's word") {
  for (const bool shrink : {false, true}) {
    MemoryFile file(written(planned(fixed_disk(20 * kTiny)), {{0, 20 * kTiny}}));
    file.start_journal();
    must(open_writable(file)->resize(shrink ? 5 * kTiny : 40 * kTiny));
    for (std::size_t events = 0; events <= file.journal().size(); ++events) {
      for (const std::uint64_t seed : crash_seeds(events)) {
        CAPTURE(shrink);
        CAPTURE(events);
        CAPTURE(seed);
        MemoryFile crashed(file.after_crash(events, seed));
        REQUIRE(must(probe_vhd(crashed)));
        // What was left behind is told, and given back.
        const auto seen = testing::read_all(*open_readable(crashed));
        const bool longer = crashed.bytes().size() > seen.size() + kFooterBytes;
        REQUIRE(testing::check(*open_readable(crashed)).leaks == (longer ? 1 : 0));
        REQUIRE(testing::check(*open_writable(crashed), Repair::kLeaks).leaks_fixed == (longer ? 1 : 0));
        REQUIRE(crashed.bytes().size() == seen.size() + kFooterBytes);
        REQUIRE((testing::read_all(*open_readable(crashed)) == seen));
        REQUIRE(testing::check(*open_readable(crashed)).leaks == 0);
      }
    }
  }
}

TEST_CASE("I38: a resize of a vhd that fails midway is a typed error, and the disk is as before or as after") {
  for (const ImageResize& each : vhd_growths()) testing::fail_resize(each, open_either);
  for (const ImageResize& each : vhd_shrinkings()) testing::fail_resize(each, open_either);
}

TEST_CASE("I34: a vhd by QEMU is resized to exactly the size asked for, and QEMU writes it on") {
  const testing::TempDir directory;
  for (const char* subformat : {"dynamic", "fixed"}) {
    CAPTURE(subformat);
    const std::string path = directory.file(subformat);
    const std::string option = std::string("subformat=") + subformat;
    REQUIRE(testing::qemu_img({"create", "-q", "-f", "vpc", "-o", option, path, "5M"}).exit_code == 0);
    testing::qemu_io(path, "vpc", {"write -P 0x11 0 5M"});
    Operation operation;
    const ResizeOptions to{.size = 300 << 20, .format = DiskFormat::kVhd};
    CHECK(must(resize_image(path, to, operation.context)).virtual_bytes == 300 << 20);
    const testing::RunResult io = testing::qemu_io(
        path, "vpc", {"read -P 0x11 0 5M", "read -P 0 6M 290M", "write -P 0x22 299M 1M", "read -P 0x22 299M 1M"});
    CAPTURE(io.output);
    CHECK(io.output.find("failed") == std::string::npos);
    CHECK(must(check_image(path, {.format = DiskFormat::kVhd}, operation.context)).corruptions == 0);
    must(resize_image(path, {.size = 3 << 20, .shrink = true, .format = DiskFormat::kVhd}, operation.context));
    CHECK(testing::qemu_io(path, "vpc", {"read -P 0x11 0 3M"}).output.find("failed") == std::string::npos);
    must(resize_image(path, to, operation.context));
    CHECK(testing::qemu_io(path, "vpc", {"read -P 0x11 0 3M", "read -P 0 3M 297M"}).output.find("failed") ==
          std::string::npos);
  }
}

TEST_CASE("I34: a table that moved behind the blocks is back when the disk is small again, and the file is as short") {
  const Image start = written(tiny_disk(100), {{0, 10 * kTiny}});
  MemoryFile file(start);
  must(open_writable(file)->resize(300 * kTiny));
  REQUIRE(must(parse_dynamic_header(Bytes(file.bytes()).subspan(kFooterBytes, kHeaderBytes))).table_offset != kTableAt);
  must(open_writable(file)->resize(100 * kTiny));
  CHECK(must(parse_dynamic_header(Bytes(file.bytes()).subspan(kFooterBytes, kHeaderBytes))).table_offset == kTableAt);
  CHECK(file.bytes().size() == start.size());
  CHECK(testing::check(*open_readable(file)).leaks == 0);
}

TEST_CASE("I34: the geometry of a resized vhd is that of its size where its maker goes by the size") {
  CHECK(geometry_of(0).bytes() == 0);
  const auto is = [](std::uint64_t bytes, unsigned cylinders, unsigned heads, unsigned sectors) {
    const Geometry found = geometry_of(bytes);
    CAPTURE(bytes);
    CHECK(found.cylinders == cylinders);
    CHECK(found.heads == heads);
    CHECK(found.sectors == sectors);
  };
  // The specification's branches.
  is(std::uint64_t{40} << 20, 963, 5, 17);
  is(std::uint64_t{1} << 30, 2080, 16, 63);
  is(std::uint64_t{200} << 20, 825, 16, 31);
  is(std::uint64_t{127} << 30, 65278, 16, 255);
  is(std::uint64_t{2040} << 30, 65535, 16, 255);
  Image windows = planned(dynamic_disk(kSmallBlock));
  edit_footers(windows, [](Footer& footer) {
    footer.creator = "win ";
    footer.geometry = geometry_of(kSmallBlock);
  });
  MemoryFile file(windows);
  must(open_writable(file)->resize(std::uint64_t{1} << 30));
  const Footer footer = must(parse_footer(Bytes(file.bytes()).first(kFooterBytes)));
  CHECK(footer.geometry.cylinders == 2080);
  CHECK(footer.disk_bytes() == 1u << 30);
}

TEST_CASE("I34: a size that a vhd cannot have, or preallocation, is refused, and nothing is written") {
  const auto refused = [](const Image& start, const ResizeOptions& options, ErrorCode code, const char* says) {
    const testing::TempDir directory;
    const std::string path = directory.file("a.vhd");
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
  for (const Image& each : {planned(dynamic_disk(2 << 20)), planned(fixed_disk(2 << 20))}) {
    refused(each, {.size = 1 << 20}, ErrorCode::kInvalidArgument, "shrink: ");
    refused(each, {.size = kMaxDiskBytes + 512}, ErrorCode::kInvalidArgument, "2040 GiB");
    refused(each, {.size = 3 << 20, .preallocation = Preallocation::kFull}, ErrorCode::kUnsupported, "preallocation: ");
  }
  refused(planned(fixed_disk(2 << 20)), {.size = 0, .shrink = true}, ErrorCode::kInvalidArgument, "one sector");
  refused(tiny_disk(10), {.size = kMaxDiskBytes}, ErrorCode::kUnsupported, std::to_string(kTiny << 24).c_str());
  Image of_xen = planned(dynamic_disk(2 << 20));
  edit_footers(of_xen, [](Footer& footer) { footer.creator = {'t', 'a', 'p', '\0'}; });
  refused(of_xen, {.size = 3 << 20}, ErrorCode::kUnsupported, "Xen");
  Image damaged = written(tiny_disk(10), {{0, 512}});
  std::copy_n(damaged.begin() + kTableAt, 4, damaged.begin() + kTableAt + 4);
  refused(damaged, {.size = 2 << 20}, ErrorCode::kImageCorrupt, "damaged");
}

TEST_CASE("I34: a growth of a vhd that is given up leaves the file as it was") {
  for (const Image& start :
       {written(planned(fixed_disk(8 * kTiny)), {{0, 8 * kTiny}}), written(tiny_disk(20), {{0, 20 * kTiny}}),
        written(by_geometry(planned(fixed_disk(kOfGeometry + 2048)), "qemu"), {{0, kOfGeometry}})}) {
    MemoryFile file(start);
    auto block = open_writable(file);
    const std::uint64_t size = block->size();
    must(block->make_room(30 * kTiny));
    must(block->make_room(90 * kTiny));
    must(block->write(50 * kTiny, testing::pattern(512, 1)));
    must(block->flush());
    must(block->write(60 * kTiny, testing::pattern(512, 1)));
    CHECK(file.bytes().size() > start.size());
    block->abandon();
    block.reset();
    CHECK(open_readable(file)->size() == size);
    CHECK(file.bytes().size() == start.size());
    CHECK((testing::read_all(*open_readable(file)) == [&] {
      MemoryFile old(start);
      return testing::read_all(*open_readable(old));
    }()));
    const CheckReport report = testing::check(*open_readable(file));
    CHECK(report.corruptions + report.leaks == 0);
  }
}

TEST_CASE("I33: a vhd base that is too small grows, and reads as its overlay did") {
  for (const bool fixed : {false, true}) {
    const testing::TempDir directory;
    Operation operation({"/"});
    const std::string base = directory.file("base"), overlay = directory.file("overlay");
    constexpr std::uint64_t kBase = (1u << 20) + 512;
    testing::put(base, written(planned(fixed ? fixed_disk(kBase) : dynamic_disk(kBase)), {{4096, kBase - 4096}}));
    must(create_image(overlay,
                      {.size = 3 << 20,
                       .backing = BackingOption{.path = "base", .format = DiskFormat::kVhd},
                       .format = VhdCreate{.block_size = kSmallBlock}},
                      operation.context));
    {
      const auto image = must(OpenImage::open(overlay, {}, operation.context));
      must(image->write(1 << 20, testing::pattern(1 << 20, 3)));
      must(image->close());
    }
    const auto before = must(testing::guest_bytes(overlay, DiskFormat::kVhd));
    must(commit_image(overlay, {}, operation.context));
    CHECK((must(testing::guest_bytes(overlay, DiskFormat::kVhd)) == before));
    CHECK((must(testing::guest_bytes(base, DiskFormat::kVhd)) == before));
    CHECK(must(check_image(base, {.format = DiskFormat::kVhd}, operation.context)).corruptions == 0);
  }
}

}  // namespace sluicebox::image::vhd
