#include <functional>

#include "image/probe.h"
#include "test/image/vhdx_fixture.h"

namespace sluicebox::image::vhdx {
namespace {

struct Malformed {
  const char* name;
  std::function<void(Image&)> damage;
  ErrorCode code;
};

void set_item32(Image& image, std::size_t offset, std::uint32_t value) {
  store_le32(image.data() + kMetadataAt + kMetadataTableBytes + offset, value);
}
void set_item64(Image& image, std::size_t offset, std::uint64_t value) {
  store_le64(image.data() + kMetadataAt + kMetadataTableBytes + offset, value);
}
// Of the metadata table's entry `index`.
std::byte* item_entry(Image& image, std::size_t index) { return image.data() + kMetadataAt + 32 + index * 32; }

const Malformed kMalformed[] = {
    {"nothing", [](Image& image) { image.clear(); }, ErrorCode::kImageFormat},
    {"another signature", [](Image& image) { image[0] = std::byte{'x'}; }, ErrorCode::kImageFormat},
    {"only the signature", [](Image& image) { image.resize(512); }, ErrorCode::kImageCorrupt},
    {"no sound header",
     [](Image& image) { image[kHeaderOffsets[0] + 20] = image[kHeaderOffsets[1] + 20] = std::byte{0x77}; },
     ErrorCode::kImageCorrupt},
    {"two headers of one number that differ",
     [](Image& image) {
       Header header = *header_of(image, 1);
       header.sequence = 1;
       header.file_write = id_of(7);
       put_header(image, 1, header);
     },
     ErrorCode::kImageCorrupt},
    {"version 2", [](Image& image) { edit_headers(image, [](Header& header) { header.version = 2; }); },
     ErrorCode::kUnsupported},
    {"no sound region table",
     [](Image& image) { image[kRegionTableOffsets[0] + 20] = image[kRegionTableOffsets[1] + 20] = std::byte{0x77}; },
     ErrorCode::kImageCorrupt},
    {"2^32-1 regions",
     [](Image& image) { edit_region_tables(image, [](std::byte* table) { store_le32(table + 8, UINT32_MAX); }); },
     ErrorCode::kImageCorrupt},
    {"no regions", [](Image& image) { edit_region_tables(image, [](std::byte* table) { store_le32(table + 8, 0); }); },
     ErrorCode::kImageCorrupt},
    {"an unknown region that must be known",
     [](Image& image) { edit_region_tables(image, [](std::byte* table) { store_guid(table + 16, id_of(8)); }); },
     ErrorCode::kUnsupported},
    {"a region twice",
     [](Image& image) { edit_region_tables(image, [](std::byte* table) { store_guid(table + 48, kTableRegion); }); },
     ErrorCode::kImageCorrupt},
    {"a region at an odd place",
     [](Image& image) { edit_region_tables(image, [](std::byte* table) { store_le64(table + 32, 4096); }); },
     ErrorCode::kImageCorrupt},
    {"a region at 2^64-1 MiB",
     [](Image& image) {
       edit_region_tables(image, [](std::byte* table) { store_le64(table + 32, UINT64_MAX << 20); });
     },
     ErrorCode::kImageCorrupt},
    {"a region over the other",
     [](Image& image) { edit_region_tables(image, [](std::byte* table) { store_le64(table + 32, kMetadataAt); }); },
     ErrorCode::kImageCorrupt},
    {"a region over the log",
     [](Image& image) { edit_region_tables(image, [](std::byte* table) { store_le64(table + 32, kLogAt); }); },
     ErrorCode::kImageCorrupt},
    {"a region past the end",
     [](Image& image) { edit_region_tables(image, [](std::byte* table) { store_le64(table + 32, 64 << 20); }); },
     ErrorCode::kImageCorrupt},
    {"a table of 4 GiB",
     [](Image& image) { edit_region_tables(image, [](std::byte* table) { store_le32(table + 40, 0xfff00000); }); },
     ErrorCode::kImageCorrupt},
    {"no metadata table", [](Image& image) { image[kMetadataAt] = std::byte{0}; }, ErrorCode::kImageCorrupt},
    {"65535 items", [](Image& image) { store_le16(image.data() + kMetadataAt + 10, 0xffff); },
     ErrorCode::kImageCorrupt},
    {"too few items", [](Image& image) { store_le16(image.data() + kMetadataAt + 10, 3); }, ErrorCode::kImageCorrupt},
    {"an unknown item that must be known", [](Image& image) { store_guid(item_entry(image, 0), id_of(8)); },
     ErrorCode::kUnsupported},
    {"an item twice", [](Image& image) { store_guid(item_entry(image, 1), kFileParameters); },
     ErrorCode::kImageCorrupt},
    {"an item in the table", [](Image& image) { store_le32(item_entry(image, 1) + 16, 64); }, ErrorCode::kImageCorrupt},
    {"an item past the region", [](Image& image) { store_le32(item_entry(image, 1) + 16, 1 << 20); },
     ErrorCode::kImageCorrupt},
    {"an item of 4 GiB", [](Image& image) { store_le32(item_entry(image, 1) + 20, UINT32_MAX); },
     ErrorCode::kImageCorrupt},
    {"an item of 4 bytes that has 8", [](Image& image) { store_le32(item_entry(image, 1) + 20, 4); },
     ErrorCode::kImageCorrupt},
    {"blocks of 0 bytes", [](Image& image) { set_item32(image, 0, 0); }, ErrorCode::kImageCorrupt},
    {"blocks of 3 MiB", [](Image& image) { set_item32(image, 0, 3 << 20); }, ErrorCode::kImageCorrupt},
    {"blocks of 512 MiB", [](Image& image) { set_item32(image, 0, 512 << 20); }, ErrorCode::kImageCorrupt},
    {"a size of 2^64-512", [](Image& image) { set_item64(image, 8, UINT64_MAX - 511); }, ErrorCode::kImageCorrupt},
    {"a size above 64 TiB", [](Image& image) { set_item64(image, 8, kMaxDiskBytes + 512); }, ErrorCode::kImageCorrupt},
    {"a size that is no multiple of a sector", [](Image& image) { set_item64(image, 8, 1000); },
     ErrorCode::kImageCorrupt},
    {"a disk that the table does not cover", [](Image& image) { set_item64(image, 8, kMaxDiskBytes); },
     ErrorCode::kImageCorrupt},
    {"sectors of 0 bytes", [](Image& image) { set_item32(image, 32, 0); }, ErrorCode::kImageCorrupt},
    {"sectors of 1 KiB", [](Image& image) { set_item32(image, 36, 1024); }, ErrorCode::kImageCorrupt},
    {"a parent without a locator", [](Image& image) { set_item32(image, 4, 2); }, ErrorCode::kImageCorrupt},
};

Image two_blocks() {
  MemoryFile file(planned(disk(4 << 20)));
  auto block = open_writable(file);
  must(block->write(0, testing::pattern(kMiB, 1)));
  must(block->write(kMiB, testing::pattern(kMiB, 2)));
  must(block->flush());
  return file.bytes();
}

}  // namespace

TEST_CASE("I12, I45: a malformed vhdx is refused by a typed error, at once") {
  for (const Malformed& each : kMalformed) {
    CAPTURE(each.name);
    Image image = planned(disk(4 << 20));
    each.damage(image);
    MemoryFile file(image);
    for (const bool info_only : {false, true}) {
      const auto opened = open_vhdx(file, {.info_only = info_only});
      REQUIRE_FALSE(opened.ok());
      CAPTURE(opened.error().message);
      CHECK(error_code_name(opened.error().code) == std::string(error_code_name(each.code)));
    }
    CHECK(file.bytes() == image);
  }
}

TEST_CASE("I12, I45, I55: a vhdx whose parent's names cannot be right is refused by a typed error") {
  const auto locator_at = static_cast<std::size_t>(kMetadataAt + kMetadataTableBytes + 40);
  const auto put16 = [=](Image& image, std::size_t at, std::uint16_t value) {
    store_le16(image.data() + locator_at + at, value);
  };
  const auto put32 = [=](Image& image, std::size_t at, std::uint32_t value) {
    store_le32(image.data() + locator_at + at, value);
  };
  const Malformed cases[] = {
      {"no locator",
       [](Image& image) { store_guid(item_entry(image, 5), id_of(9)), store_le32(item_entry(image, 5) + 24, 0); },
       ErrorCode::kImageCorrupt},
      {"a locator of another kind", [=](Image& image) { store_guid(image.data() + locator_at, id_of(9)); },
       ErrorCode::kUnsupported},
      {"a locator of 19 bytes", [](Image& image) { store_le32(item_entry(image, 5) + 20, 19); },
       ErrorCode::kImageCorrupt},
      {"a locator of 4 GiB", [](Image& image) { store_le32(item_entry(image, 5) + 20, UINT32_MAX); },
       ErrorCode::kImageCorrupt},
      {"a locator over the table", [](Image& image) { store_le32(item_entry(image, 5) + 16, 32); },
       ErrorCode::kImageCorrupt},
      {"65535 names", [=](Image& image) { put16(image, 18, UINT16_MAX); }, ErrorCode::kImageCorrupt},
      {"a key at 2^32-1", [=](Image& image) { put32(image, 20, UINT32_MAX); }, ErrorCode::kImageCorrupt},
      {"a value past the item", [=](Image& image) { put16(image, 20 + 12 + 10, UINT16_MAX); },
       ErrorCode::kImageCorrupt},
      {"a key of half a character", [=](Image& image) { put16(image, 28, 3); }, ErrorCode::kImageCorrupt},
      {"no names", [=](Image& image) { put16(image, 18, 0); }, ErrorCode::kImageChain},
      {"an id and no name", [=](Image& image) { put16(image, 18, 1); }, ErrorCode::kImageChain},
      {"an empty name", [=](Image& image) { put16(image, 20 + 12 + 10, 0); }, ErrorCode::kImageChain},
  };
  for (const Malformed& each : cases) {
    CAPTURE(each.name);
    Image image = planned(over(disk(4 << 20), "base.vhdx"));
    each.damage(image);
    MemoryFile file(image);
    const auto opened = open_vhdx(file, {.writable = true});
    REQUIRE_FALSE(opened.ok());
    CHECK(error_code_name(opened.error().code) == std::string(error_code_name(each.code)));
    CHECK(open_vhdx(file, {.info_only = true}).ok() == (each.code == ErrorCode::kImageChain));
    CHECK(file.bytes() == image);
  }
}

TEST_CASE("one sound header is enough, and the newer one counts") {
  for (const std::size_t bad : {0u, 1u}) {
    Image image = two_blocks();
    image[kHeaderOffsets[bad] + 100] ^= std::byte{1};
    MemoryFile file(image);
    auto block = open_writable(file);
    CHECK(testing::check(*block).corruptions == 0);
    must(block->write(2 * kMiB, testing::pattern(512, 3)));
    must(block->flush());
    CHECK(header_of(file.bytes(), 0).has_value());
    CHECK(header_of(file.bytes(), 1).has_value());
  }
  // The same header twice, as some tools write it.
  Image image = two_blocks();
  put_header(image, 0, newest_header(image));
  put_header(image, 1, newest_header(image));
  MemoryFile file(image);
  CHECK(open_readable(file)->size() == 4 << 20);
}

TEST_CASE("I50: the second region table serves when the first is damaged; a repair makes both sound") {
  const Image sound = two_blocks();
  for (const std::size_t bad : {0u, 1u}) {
    Image image = sound;
    image[kRegionTableOffsets[bad] + 33] ^= std::byte{1};
    MemoryFile file(image);
    auto block = open_readable(file);
    MemoryFile untouched(sound);
    CHECK(testing::read_all(*block) == testing::read_all(*open_readable(untouched)));
    const CheckReport report = testing::check(*block);
    CHECK(report.corruptions == 1);
    CHECK(report.problems.front().kind == "region-table");
    CHECK(file.bytes() == image);
    CHECK(testing::check(*open_writable(file), Repair::kLeaks).corruptions_fixed == 0);
    CHECK(testing::check(*open_writable(file), Repair::kAll).corruptions_fixed == 1);
    CHECK(testing::check(*open_readable(file)).corruptions == 0);
    CHECK(std::equal(file.bytes().begin() + static_cast<std::ptrdiff_t>(kRegionTableOffsets[bad]),
                     file.bytes().begin() + static_cast<std::ptrdiff_t>(kRegionTableOffsets[bad] + kRegionTableBytes),
                     sound.begin() + static_cast<std::ptrdiff_t>(kRegionTableOffsets[bad])));
  }
}

TEST_CASE("I46: entries past the end, over metadata or over each other, or of no known state, are counted, not read") {
  const std::uint64_t first = offset_of(table_entry(two_blocks(), 0));
  struct Case {
    const char* name;
    std::uint64_t entry;  // of block 2
    std::uint64_t corruptions;
    const char* kind;
  };
  const auto present = [](std::uint64_t at) { return entry_of(BlockState::kPresent, at); };
  for (const Case& each :
       {Case{"past the end", present(std::uint64_t{1} << 40), 1, "offset-past-end"},
        Case{"at the end of all numbers", present(UINT64_MAX << 20), 1, "offset-past-end"},
        Case{"over the headers", present(0), 1, "overlap"}, Case{"over the log", present(kLogAt), 1, "overlap"},
        Case{"over the table", present(kTableAt), 1, "overlap"},
        Case{"over the metadata", present(kMetadataAt), 1, "overlap"},
        Case{"over another block", present(first), 2, "overlap"}, Case{"state 4", 4, 1, "invalid-state"},
        Case{"partly there without a parent", present(first) | 1, 2, "overlap"}}) {
    CAPTURE(each.name);
    Image image = two_blocks();
    set_table_entry(image, 2, each.entry);
    MemoryFile file(image);
    auto block = open_readable(file);
    Image out(512);
    CHECK(block->read(2 * kMiB, out).error().code == ErrorCode::kImageCorrupt);
    CHECK(block->status(2 * kMiB, 512).error().code == ErrorCode::kImageCorrupt);
    CHECK(block->read(3 * kMiB, out).ok());
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

TEST_CASE("I46: where the log lies behind the end of the file, no new block comes to lie there") {
  Image image = planned(disk(8 * kMiB));
  const std::uint64_t end = (image.size() + kMiB - 1) / kMiB * kMiB;
  edit_headers(image, [&](Header& header) { header.log_offset = end; });
  MemoryFile file(image);
  const Image data = testing::pattern(3 * kMiB, 5);
  {
    auto block = open_writable(file);
    must(block->write(0, data));
    must(block->flush());
  }
  const auto block = open_readable(file);
  CHECK(testing::check(*block).corruptions == 0);
  Image back(data.size());
  must(block->read(0, back));
  CHECK(back == data);
}

TEST_CASE("blocks that are undefined, zero or unmapped read as zeros, and get a place when they are written") {
  for (const std::uint64_t state : {1u, 2u, 3u, 5u}) {
    CAPTURE(state);
    Image image = two_blocks();
    set_table_entry(image, 2, state);
    set_table_entry(image, 1, offset_of(table_entry(image, 1)) | state);  // it may keep its place, and shows zeros
    MemoryFile file(image);
    {
      auto block = open_writable(file);
      Image bytes(2 * kMiB);
      must(block->read(kMiB, bytes));
      CHECK(all_zero(bytes));
      CHECK(must(block->status(kMiB, 2 * kMiB)).mapping == Mapping::kZero);
      must(block->write(2 * kMiB + 512, Image(512, std::byte{7})));
      must(block->flush());
    }
    auto block = open_readable(file);
    Image out(1024);
    must(block->read(2 * kMiB, out));
    CHECK(out[511] == std::byte{0});
    CHECK(out[512] == std::byte{7});
    CHECK(testing::check(*block).corruptions == 0);
  }
}

TEST_CASE("a header whose number has no room above it is read, and not written") {
  Image image = two_blocks();
  edit_headers(image, [](Header& header) { header.sequence = UINT64_MAX - (2 - header.sequence % 2); });
  MemoryFile file(image);
  auto block = open_writable(file);
  Image out(512);
  CHECK(block->read(0, out).ok());
  CHECK(block->write(0, out).error().code == ErrorCode::kImageCorrupt);
}

TEST_CASE("I14: a vhdx is recognised by its first bytes") {
  MemoryFile file(two_blocks());
  CHECK(must(probe_format(file)) == DiskFormat::kVhdx);
}

}  // namespace sluicebox::image::vhdx
