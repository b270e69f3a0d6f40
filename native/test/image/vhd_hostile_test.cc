#include <functional>
#include <limits>

#include "image/probe.h"
#include "test/image/vhd_fixture.h"

namespace sluicebox::image::vhd {
namespace {

struct Malformed {
  const char* name;
  std::function<void(Image&)> damage;
  ErrorCode code;
};

void set_footer32(Image& image, std::size_t field, std::uint32_t value) {
  for (const std::size_t at : {std::size_t{0}, image.size() - kFooterBytes}) {
    std::byte* footer = image.data() + at;
    store_be32(footer + field, value);
    store_be32(footer + footer_at::kChecksum, checksum(Bytes(footer, kFooterBytes), footer_at::kChecksum));
  }
}

const Malformed kMalformed[] = {
    {"nothing", [](Image& image) { image.clear(); }, ErrorCode::kImageFormat},
    {"cut inside of the footer", [](Image& image) { image.resize(200); }, ErrorCode::kImageFormat},
    {"cut behind the footer", [](Image& image) { image.resize(512); }, ErrorCode::kImageCorrupt},
    {"both checksums wrong", [](Image& image) { image[100] = image[image.size() - 412] = std::byte{1}; },
     ErrorCode::kImageCorrupt},
    {"version 2", [](Image& image) { set_footer32(image, footer_at::kVersion, 0x20000); }, ErrorCode::kUnsupported},
    {"type 5", [](Image& image) { set_footer32(image, footer_at::kType, 5); }, ErrorCode::kUnsupported},
    {"type 0", [](Image& image) { set_footer32(image, footer_at::kType, 0); }, ErrorCode::kUnsupported},
    {"a fixed one without room for its disk",
     [](Image& image) { edit_footers(image, [](Footer& footer) { footer.type = DiskType::kFixed; }); },
     ErrorCode::kImageCorrupt},
    {"a size of 2^64-1",
     [](Image& image) { edit_footers(image, [](Footer& footer) { footer.current_size = UINT64_MAX; }); },
     ErrorCode::kImageCorrupt},
    {"a size above 2040 GiB",
     [](Image& image) { edit_footers(image, [](Footer& footer) { footer.current_size = kMaxDiskBytes + 512; }); },
     ErrorCode::kImageCorrupt},
    {"a disk that the table does not cover",
     [](Image& image) { edit_footers(image, [](Footer& footer) { footer.current_size = kMaxDiskBytes; }); },
     ErrorCode::kImageCorrupt},
    {"a header at 2^64-1",
     [](Image& image) { edit_footers(image, [](Footer& footer) { footer.data_offset = UINT64_MAX; }); },
     ErrorCode::kImageCorrupt},
    {"a header over the footer",
     [](Image& image) { edit_footers(image, [](Footer& footer) { footer.data_offset = 0; }); },
     ErrorCode::kImageCorrupt},
    {"a header past the end",
     [](Image& image) { edit_footers(image, [](Footer& footer) { footer.data_offset = 1 << 20; }); },
     ErrorCode::kImageCorrupt},
    {"a header that is none", [](Image& image) { image[512] = std::byte{0}; }, ErrorCode::kImageCorrupt},
    {"a header with a wrong checksum", [](Image& image) { image[600] ^= std::byte{1}; }, ErrorCode::kImageCorrupt},
    {"blocks of 0 bytes",
     [](Image& image) { edit_header(image, [](DynamicHeader& header) { header.block_size = 0; }); },
     ErrorCode::kImageCorrupt},
    {"blocks of 3 MiB",
     [](Image& image) { edit_header(image, [](DynamicHeader& header) { header.block_size = 3 << 20; }); },
     ErrorCode::kImageCorrupt},
    {"blocks of 2 GiB",
     [](Image& image) { edit_header(image, [](DynamicHeader& header) { header.block_size = 1u << 31; }); },
     ErrorCode::kImageCorrupt},
    {"a table at 2^64-1",
     [](Image& image) { edit_header(image, [](DynamicHeader& header) { header.table_offset = UINT64_MAX; }); },
     ErrorCode::kImageCorrupt},
    {"a table over the header",
     [](Image& image) { edit_header(image, [](DynamicHeader& header) { header.table_offset = 512; }); },
     ErrorCode::kImageCorrupt},
    {"a table past the end",
     [](Image& image) { edit_header(image, [](DynamicHeader& header) { header.table_offset = 1 << 30; }); },
     ErrorCode::kImageCorrupt},
    {"a table of 4 Gi entries",
     [](Image& image) { edit_header(image, [](DynamicHeader& header) { header.max_entries = UINT32_MAX; }); },
     ErrorCode::kImageCorrupt},
    {"no table", [](Image& image) { edit_header(image, [](DynamicHeader& header) { header.max_entries = 0; }); },
     ErrorCode::kImageCorrupt},
};

// Two blocks with data, on a disk of four.
Image two_blocks() {
  MemoryFile file(planned(dynamic_disk(4 * kSmallBlock)));
  auto block = open_writable(file);
  must(block->write(0, testing::pattern(kSmallBlock, 1)));
  must(block->write(kSmallBlock, testing::pattern(kSmallBlock, 2)));
  must(block->flush());
  return file.bytes();
}

}  // namespace

TEST_CASE("I12, I45, I50: a malformed vhd is refused by a typed error, at once") {
  for (const Malformed& each : kMalformed) {
    CAPTURE(each.name);
    Image image = planned(dynamic_disk(2 << 20));
    each.damage(image);
    MemoryFile file(image);
    for (const bool info_only : {false, true}) {
      const auto opened = open_vhd(file, {.info_only = info_only});
      REQUIRE_FALSE(opened.ok());
      CHECK(error_code_name(opened.error().code) == std::string(error_code_name(each.code)));
    }
    CHECK(file.bytes() == image);
  }
}

TEST_CASE(
    "I12, I45, I55: a vhd whose parent has no name that can be read is IMAGE_CHAIN, and tells so much in its info") {
  struct Case {
    const char* name;
    std::uint32_t code, length;
    std::uint64_t offset;
    std::string bytes;
  };
  const std::uint64_t at = planned(over(dynamic_disk(2 << 20), "base.vhd")).size() - kFooterBytes - kMaxNameBytes;
  const Case cases[] = {
      {"at 2^64-1", kRelativeWindows, 16, UINT64_MAX, ""},
      {"past the end", kRelativeWindows, 16, std::uint64_t{1} << 40, ""},
      {"of 4 GiB", kRelativeWindows, UINT32_MAX, at, ""},
      {"of half a character", kRelativeWindows, 3, at, std::string("a\0b", 3)},
      {"of half a pair", kRelativeWindows, 2, at, std::string("\x00\xd8", 2)},
      {"of nothing", kRelativeWindows, 0, at, ""},
      {"of a NUL", kRelativeWindows, 4, at, std::string(4, '\0')},
      {"of a folder", kRelativeWindows, 4, at, std::string(".\0\\\0", 4)},
      {"of a drive", kAbsoluteWindows, 6, at, std::string("C\0:\0\\\0", 6)},
      {"a URL of another host", kMacUrl, 13, at, "file://host/a"},
      {"a URL of another kind", kMacUrl, 8, at, "http://a"},
      {"a URL with a NUL in it", kMacUrl, 12, at, "file:///a%00"},
      {"of a platform that nobody knows", 0x12345678, 16, at, "base.vhd"},
  };
  for (const Case& each : cases) {
    CAPTURE(each.name);
    Image image = planned(over(dynamic_disk(2 << 20), "base.vhd"));
    std::ranges::copy(as_bytes(each.bytes), image.begin() + static_cast<std::ptrdiff_t>(at));
    edit_header(image, [&](DynamicHeader& header) {
      header.parent_name.clear();
      header.locators[0].code = each.code;
      header.locators[0].length = each.length;
      header.locators[0].offset = each.offset;
    });
    MemoryFile file(image);
    const auto opened = open_vhd(file, {.writable = true});
    REQUIRE_FALSE(opened.ok());
    CHECK(opened.error().code == ErrorCode::kImageChain);
    CHECK(must(open_vhd(file, {.info_only = true}))->backing()->path.empty());
    CHECK(file.bytes() == image);
  }
}

TEST_CASE("I46: a vhd's parent is not renamed over anything that its locators say the name lies in") {
  for (const std::uint64_t over_what : {std::uint64_t{0}, std::uint64_t{512}, kTableAt, std::uint64_t{2048}}) {
    CAPTURE(over_what);
    Image image = planned(over(dynamic_disk(2 << 20), "base.vhd"));
    edit_header(image, [&](DynamicHeader& header) { header.locators[0].offset = over_what; });
    MemoryFile file(image);
    must(open_writable(file)->set_backing(BackingReference{.path = "another.vhd", .format = "vhd"}));
    auto block = open_writable(file);
    CHECK(block->backing()->path == "another.vhd");
    CHECK(testing::check(*block).corruptions == 0);
    must(block->write(0, testing::pattern(512, 1)));
    must(block->flush());
    Image out(512);
    must(open_readable(file)->read(0, out));
    CHECK(out == testing::pattern(512, 1));
  }
}

TEST_CASE("I50: either footer speaks for a dynamic vhd when the other one is damaged; the first write mends both") {
  const Image sound = two_blocks();
  const Image disk = [&] {
    MemoryFile file(sound);
    return testing::read_all(*open_readable(file));
  }();
  for (const bool front : {true, false}) {
    CAPTURE(front);
    Image image = sound;
    image[(front ? 0 : image.size() - kFooterBytes) + 70] ^= std::byte{0xff};
    MemoryFile file(image);
    CHECK(must(probe_format(file)) == DiskFormat::kVhd);
    auto block = open_readable(file);
    CHECK(testing::read_all(*block) == disk);
    const CheckReport report = testing::check(*block);
    CHECK(report.corruptions == (front ? 1 : 0));
    CHECK(report.leaks == (front ? 0 : 1));
    CHECK(report.problems.front().kind == (front ? "footer-copy" : "footer-missing"));
    CHECK(file.bytes() == image);
    MemoryFile repaired(image);
    const CheckReport fixed = testing::check(*open_writable(repaired), front ? Repair::kAll : Repair::kLeaks);
    CHECK(fixed.corruptions_fixed + fixed.leaks_fixed == 1);
    const CheckReport after = testing::check(*open_readable(repaired));
    CHECK(after.corruptions + after.leaks == 0);
    CHECK(testing::read_all(*open_readable(repaired)) == disk);
    auto writer = open_writable(file);
    must(writer->write(3 * kSmallBlock, Image(512, std::byte{1})));
    must(writer->flush());
    const CheckReport written = testing::check(*open_readable(file));
    CHECK(written.corruptions == 0);
  }
}

TEST_CASE("a footer of 511 bytes, as old files have it, ends a fixed vhd") {
  Image image = planned(fixed_disk(64 << 10));
  image.pop_back();
  MemoryFile file(image);
  CHECK(must(probe_format(file)) == DiskFormat::kVhd);
  CHECK(open_readable(file)->size() == 64 << 10);
}

TEST_CASE("I44: what a guest writes in front of its fixed vhd does not make another image of it") {
  Image image = planned(fixed_disk(1 << 20));
  const Image other = two_blocks();
  std::copy_n(other.begin(), 4096, image.begin());
  MemoryFile file(image);
  auto block = open_readable(file);
  CHECK(block->size() == 1 << 20);
  Image front(4096);
  must(block->read(0, front));
  CHECK(std::equal(front.begin(), front.end(), other.begin()));
}

TEST_CASE("I14, I44: a file is recognised as a fixed vhd only by a sound footer that fits it") {
  const auto probed = [](const Image& image) {
    MemoryFile file(image);
    return must(probe_format(file));
  };
  const Image image = planned(fixed_disk(1 << 20));
  CHECK(probed(image) == DiskFormat::kVhd);
  Image longer(512);
  longer.insert(longer.end(), image.begin(), image.end());
  CHECK_FALSE(probed(longer).has_value());
  Image damaged = image;
  damaged[damaged.size() - 300] ^= std::byte{1};
  CHECK_FALSE(probed(damaged).has_value());
  CHECK_FALSE(probed(Image(1 << 20)).has_value());
  CHECK_FALSE(probed(Image()).has_value());
  CHECK(probed(planned(dynamic_disk(1 << 20))) == DiskFormat::kVhd);
}

TEST_CASE("the size is the geometry's for creators that go by it, else the current size, as QEMU reckons") {
  const testing::TempDir directory;
  struct Case {
    const char* creator;
    Geometry geometry;
    bool by_geometry;
  };
  const Geometry small{.cylinders = 10, .heads = 4, .sectors = 17};
  for (const Case& each : {Case{"vpc ", small, true}, Case{"qemu", small, true}, Case{"none", small, true},
                           Case{"win ", small, false}, Case{"qem2", small, false}, Case{"d2v ", small, false},
                           Case{"CTXS", small, false}, Case{"vpc ", kLargestGeometry, false}}) {
    CAPTURE(each.creator);
    Image image = planned(dynamic_disk(2 << 20));
    edit_footers(image, [&](Footer& footer) {
      footer.creator = each.creator;
      footer.geometry = each.geometry;
    });
    MemoryFile file(image);
    const std::uint64_t size = open_readable(file)->size();
    CHECK(size == (each.by_geometry ? each.geometry.bytes() : 2 << 20));
    const std::string path = directory.file("a.vhd");
    testing::put(path, image);
    const testing::RunResult info = testing::qemu_img({"info", "-f", "vpc", "--output=json", path});
    CHECK(info.output.find("\"virtual-size\": " + std::to_string(size) + ",") != std::string::npos);
  }
}

TEST_CASE("I46: entries past the end, over metadata or over each other are counted, not read, and nothing is written") {
  struct Case {
    const char* name;
    std::uint32_t sector;  // of block 2, which the disk has, or of block 1
    bool second;
    std::uint64_t corruptions;
    const char* kind;
  };
  const std::uint32_t first = load_be32(two_blocks().data() + kTableAt);
  for (const Case& each :
       {Case{"past the end", 1u << 30, false, 1, "offset-past-end"},
        Case{"the last sector", 0xfffffffe, false, 1, "offset-past-end"},
        Case{"over the footer's copy", 0, false, 1, "overlap"}, Case{"over the table", 3, false, 1, "overlap"},
        Case{"over another block", first, false, 2, "overlap"},
        Case{"a sector into another block", first + 1, true, 2, "overlap"}}) {
    CAPTURE(each.name);
    Image image = two_blocks();
    store_be32(image.data() + kTableAt + (each.second ? 4 : 8), each.sector);
    MemoryFile file(image);
    auto block = open_readable(file);
    Image out(512);
    const std::uint64_t at = each.second ? kSmallBlock : 2 * kSmallBlock;
    CHECK(block->read(at, out).error().code == ErrorCode::kImageCorrupt);
    CHECK(block->status(at, 512).error().code == ErrorCode::kImageCorrupt);
    CHECK(block->read(3 * kSmallBlock, out).ok());
    for (const Repair repair : {Repair::kNone, Repair::kAll}) {
      MemoryFile copy(image);
      const CheckReport report = testing::check(*open_writable(copy), repair);
      CHECK(report.corruptions == each.corruptions);
      CHECK(report.corruptions_fixed + report.leaks_fixed == 0);
      CHECK(report.problems.front().kind == each.kind);
      CHECK(copy.bytes() == image);
    }
    auto writer = open_writable(file);
    CHECK(writer->may_be_written(Writing::kBytes).error().code == ErrorCode::kImageCorrupt);
    CHECK(writer->write(0, Image(512)).error().code == ErrorCode::kImageCorrupt);
    CHECK(file.bytes() == image);
  }
}

TEST_CASE("I36: space that no entry names is a leak; at the end of the file a repair gives it back") {
  Image image = two_blocks();
  const Image sound = image;
  const Image footer(image.end() - kFooterBytes, image.end());
  image.resize(image.size() - kFooterBytes + 2 * (kSmallBlock + 512));
  image.insert(image.end(), footer.begin(), footer.end());
  MemoryFile file(image);
  CHECK(testing::check(*open_readable(file)).leaks == 2);
  CHECK(file.bytes() == image);
  const CheckReport report = testing::check(*open_writable(file), Repair::kLeaks);
  CHECK(report.leaks == 2);
  CHECK(report.leaks_fixed == 2);
  CHECK(file.bytes() == sound);
  // Between blocks it is told, and stays.
  Image hole = sound;
  store_be32(hole.data() + kTableAt, kAbsentBlock);
  MemoryFile holed(hole);
  const CheckReport told = testing::check(*open_writable(holed), Repair::kAll);
  CHECK(told.leaks == 1);
  CHECK(told.leaks_fixed == 0);
  CHECK(holed.bytes() == hole);
}

}  // namespace sluicebox::image::vhd
