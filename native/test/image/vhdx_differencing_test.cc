#include <random>

#include "image/ops/check.h"
#include "image/ops/commit.h"
#include "image/ops/create.h"
#include "image/ops/info.h"
#include "image/ops/open_image.h"
#include "image/utf16.h"
#include "test/image/operation.h"
#include "test/image/vhdx_fixture.h"

namespace sluicebox::image::vhdx {
namespace {

using testing::Operation;

constexpr std::uint64_t kChildDisk = 4 << 20;

using Pairs = std::vector<std::pair<std::string, std::string>>;

Image locator_of(const Pairs& pairs) {
  Image item(20 + pairs.size() * 12);
  store_guid(item.data(), kVhdxLocatorType);
  store_le16(item.data() + 18, static_cast<std::uint16_t>(pairs.size()));
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const std::size_t entry = 20 + i * 12;
    const Image key = *utf16_of_utf8(pairs[i].first, false);
    const Image value = *utf16_of_utf8(pairs[i].second, false);
    store_le32(item.data() + entry, static_cast<std::uint32_t>(item.size()));
    store_le32(item.data() + entry + 4, static_cast<std::uint32_t>(item.size() + key.size()));
    store_le16(item.data() + entry + 8, static_cast<std::uint16_t>(key.size()));
    store_le16(item.data() + entry + 10, static_cast<std::uint16_t>(value.size()));
    item.insert(item.end(), key.begin(), key.end());
    item.insert(item.end(), value.begin(), value.end());
  }
  return item;
}

// Block 0 is the child's own, of block 1 the sectors 2 and 3, block 2 is zeros, and block 3 its parent's.
Image child_of(const Pairs& pairs, std::uint32_t sector_size = 512) {
  PlanOptions options = disk(kChildDisk);
  options.sector_size = sector_size;
  Image image = planned(options);
  const Image locator = locator_of(pairs);
  const std::size_t item_at = kMetadataTableBytes + 4096;
  std::ranges::copy(locator, image.begin() + static_cast<std::ptrdiff_t>(kMetadataAt + item_at));
  std::byte* entry = image.data() + kMetadataAt + 32 + 5 * 32;
  store_le16(image.data() + kMetadataAt + 10, 6);
  store_guid(entry, kParentLocator);
  store_le32(entry + 16, static_cast<std::uint32_t>(item_at));
  store_le32(entry + 20, static_cast<std::uint32_t>(locator.size()));
  store_le32(entry + 24, 4);
  store_le32(image.data() + kMetadataAt + kMetadataTableBytes + 4, 2);
  // A chunk is 4096 blocks of 1 MiB (or eight times as many of sectors of 4096): its bitmap's entry is the last.
  const TableShape shape(kChildDisk, kMiB, sector_size, true);
  image.resize(kDataAt + 3 * kMiB);
  set_table_entry(image, 0, entry_of(BlockState::kPresent, kDataAt));
  set_table_entry(image, 1, entry_of(BlockState::kPartlyPresent, kDataAt + kMiB));
  set_table_entry(image, 2, entry_of(BlockState::kZero, 0));
  set_table_entry(image, shape.entry_of_bitmap(0), entry_of(BlockState::kPresent, kDataAt + 2 * kMiB));
  std::fill_n(image.begin() + static_cast<std::ptrdiff_t>(kDataAt), kMiB, std::byte{0xaa});
  std::fill_n(image.begin() + static_cast<std::ptrdiff_t>(kDataAt + kMiB), kMiB, std::byte{0xbb});
  const std::uint64_t sector = kMiB / sector_size + 2;
  image[kDataAt + 2 * kMiB + sector / 8] = std::byte{static_cast<unsigned char>(3u << (sector % 8))};
  return image;
}

Image parent_image() {
  MemoryFile file(planned(disk(kChildDisk)));
  auto block = open_writable(file);
  must(block->write(0, Image(kChildDisk, std::byte{0xcc})));
  must(block->flush());
  return file.bytes();
}

std::string linkage_of(const Image& parent) { return "{" + guid_text(newest_header(parent).data_write, true) + "}"; }

std::string expected_disk(std::size_t sector_size = 512) {
  std::string bytes(kChildDisk, '\xcc');
  std::fill_n(bytes.begin(), kMiB, '\xaa');
  std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(kMiB + 2 * sector_size), 2 * sector_size, '\xbb');
  std::fill_n(bytes.begin() + 2 * kMiB, kMiB, '\0');
  return bytes;
}

struct PlacedLocator {
  std::uint64_t offset = 0;  // in the region
  Image item;
};
PlacedLocator locator_in(const Image& image) {
  const std::byte* entry = image.data() + kMetadataAt + 32 + 5 * 32;
  const std::uint64_t offset = load_le32(entry + 16);
  const Bytes item = Bytes(image).subspan(kMetadataAt + offset, load_le32(entry + 20));
  return {.offset = offset, .item = {item.begin(), item.end()}};
}

constexpr std::uint64_t kUnevenDisk = (4u << 20) + 4096 * 3;  // the last block is cut by the disk's end

// What a guest sees of a layer over `parent`.
Image shown_over(Block& block, const Image& parent) {
  Image bytes = parent;
  for (std::uint64_t at = 0; at < block.size();) {
    const BlockStatus status = must(block.status(at, block.size() - at));
    REQUIRE(status.length > 0);
    const MutableBytes part = MutableBytes(bytes).subspan(at, status.length);
    if (status.mapping != Mapping::kUnallocated) must(block.read(at, part));
    if (status.mapping == Mapping::kZero) REQUIRE(all_zero(part));
    at += status.length;
  }
  return bytes;
}

// Random writes and zeros, whole blocks among them, on the layer and on a plain copy of the disk.
void scribble_over(Block& block, Image& model, std::uint64_t seed, int steps) {
  std::mt19937_64 random(seed);
  const std::uint64_t unit = block.allocation_unit();
  for (int i = 0; i < steps; ++i) {
    const std::uint64_t units = block.size() / unit;
    const bool whole = random() % 8 == 0;
    const std::uint64_t first = whole ? random() % 5 * (kMiB / unit) : random() % units;
    const std::uint64_t count = std::min<std::uint64_t>(whole ? kMiB / unit : 1 + random() % 100, units - first);
    const auto at = model.begin() + static_cast<std::ptrdiff_t>(first * unit);
    if (random() % 4 == 0) {
      must(block.write_zeros(first * unit, count * unit));
      std::fill_n(at, count * unit, std::byte{0});
    } else {
      const Image data = testing::pattern(count * unit, random());
      must(block.write(first * unit, data));
      std::ranges::copy(data, at);
    }
    if (random() % 8 == 0) must(block.flush());
  }
}

}  // namespace

TEST_CASE("I55: a differencing vhdx reads as its parent plus its own sectors, whichever way it names it") {
  const Image parent = parent_image();
  std::string shouted = linkage_of(parent);
  std::ranges::transform(shouted, shouted.begin(), [](unsigned char each) { return std::toupper(each); });
  const Pairs all[] = {
      {{"parent_linkage", linkage_of(parent)}, {"relative_path", ".\\bases\\base.vhdx"}},
      {{"parent_linkage", shouted}, {"absolute_win32_path", "\\\\?\\C:\\gone\\side.vhdx"}},
      {{"volume_path", "\\\\?\\Volume{12}\\side.vhdx"}, {"parent_linkage2", linkage_of(parent)}},
  };
  for (const Pairs& pairs : all) {
    const testing::TempDir directory;
    std::filesystem::create_directory(directory.file("bases"));
    testing::put(directory.file("bases/base.vhdx"), parent);
    testing::put(directory.file("side.vhdx"), parent);
    testing::put(directory.file("child.vhdx"), child_of(pairs));
    const auto bytes = testing::guest_bytes(directory.file("child.vhdx"), DiskFormat::kVhdx);
    REQUIRE_MESSAGE(bytes.ok(), bytes.error().message);
    CHECK(bytes.value() == expected_disk());
    Operation operation;
    const ImageInfo info = must(image_info(directory.file("child.vhdx"), {.chain = true}, operation.context));
    CHECK(info.chain.size() == 2);
    CHECK(info.backing->exists);
    const CheckReport report = must(check_image(directory.file("child.vhdx"), {}, operation.context));
    CHECK(report.corruptions + report.leaks == 0);
    CHECK(report.allocated_clusters == 2);
  }
}

TEST_CASE("I55: sectors of 4096 bytes have bits of their own in a differencing vhdx") {
  const testing::TempDir directory;
  const Image parent = parent_image();
  testing::put(directory.file("base.vhdx"), parent);
  testing::put(directory.file("child.vhdx"),
               child_of({{"parent_linkage", linkage_of(parent)}, {"relative_path", "base.vhdx"}}, 4096));
  CHECK(must(testing::guest_bytes(directory.file("child.vhdx"), DiskFormat::kVhdx)) == expected_disk(4096));
}

TEST_CASE("I55: without its parent, or with one that was written since, a differencing vhdx is IMAGE_CHAIN") {
  const testing::TempDir directory;
  const Image parent = parent_image();
  const std::string child = directory.file("child.vhdx");
  testing::put(child, child_of({{"parent_linkage", linkage_of(parent)}, {"relative_path", "base.vhdx"}}));
  const auto code = [&] {
    const auto bytes = testing::guest_bytes(child, DiskFormat::kVhdx);
    return bytes.ok() ? std::string("read") : std::string(error_code_name(bytes.error().code));
  };
  CHECK(code() == "image_chain");
  MemoryFile written(parent);
  {
    auto block = open_writable(written);
    must(block->write(0, Image(512)));
    must(block->flush());
  }
  testing::put(directory.file("base.vhdx"), written.bytes());
  CHECK(code() == "image_chain");
  testing::put(directory.file("base.vhdx"), parent);
  CHECK(code() == "read");
  testing::put(child, child_of({{"parent_linkage", linkage_of(parent)}}));
  CHECK(code() == "image_chain");
  Operation operation;
  CHECK(image_info(child, {}, operation.context).ok());
}

TEST_CASE("I43: a vhdx parent locator obeys the path policy: what lies elsewhere is not opened") {
  const testing::TempDir directory, outside;
  const Image parent = parent_image();
  testing::put(outside.file("secret.vhdx"), parent);
  const std::string child = directory.file("child.vhdx");
  testing::put(child,
               child_of({{"parent_linkage", linkage_of(parent)}, {"relative_path", outside.file("secret.vhdx")}}));
  Operation operation;
  CHECK(image_info(child, {.chain = true}, operation.context).error().code == ErrorCode::kPathRefused);
  Operation trusting({outside.path()});
  CHECK(image_info(child, {.chain = true}, trusting.context).ok());
}

TEST_CASE(
    "a differencing vhdx reads what was written to it, its parent where nothing was, and needs no parent for that") {
  for (const std::uint64_t block_size : {kMiB, 2 * kMiB}) {
    for (const std::uint32_t sector : {512u, 4096u}) {
      CAPTURE(block_size);
      CAPTURE(sector);
      PlanOptions options = over(disk(kUnevenDisk, block_size), "base.vhdx");
      options.sector_size = sector;
      MemoryFile file(planned(options));
      const Image parent = testing::pattern(kUnevenDisk, 5);
      Image model = parent;
      for (std::uint64_t round = 0; round < 4; ++round) {
        auto block = open_writable(file);
        CHECK(block->allocation_unit() == sector);
        scribble_over(*block, model, round, 25);
        CHECK(shown_over(*block, parent) == model);
        must(block->flush());
        CHECK(shown_over(*block, parent) == model);
        block = open_readable(file);
        CHECK(shown_over(*block, parent) == model);
        CHECK_FALSE(block->info().dirty);
        const CheckReport report = testing::check(*block);
        CHECK(report.corruptions + report.leaks == 0);
      }
    }
  }
}

TEST_CASE("a block of a differencing vhdx is partly present, whole, or zeros, as it was written") {
  MemoryFile file(planned(over(disk(kChildDisk), "base.vhdx")));
  const TableShape shape(kChildDisk, kMiB, 512, true);
  const auto state = [&](std::uint64_t block) {
    return state_of(table_entry(file.bytes(), shape.entry_of_block(block)));
  };
  auto block = open_writable(file);
  must(block->write(512, Image(1024, std::byte{1})));
  must(block->write(kMiB, Image(kMiB, std::byte{2})));
  must(block->write_zeros(2 * kMiB, kMiB));
  must(block->write_zeros(3 * kMiB + 4096, 8192));
  // Nothing points at what is not durable.
  CHECK(state(0) == BlockState::kNotPresent);
  must(block->flush());
  CHECK(state(0) == BlockState::kPartlyPresent);
  CHECK(state(1) == BlockState::kPresent);
  CHECK(state(2) == BlockState::kZero);
  CHECK(state(3) == BlockState::kPartlyPresent);
  CHECK(state_of(table_entry(file.bytes(), shape.entry_of_bitmap(0))) == BlockState::kPresent);
  CHECK(must(block->status(0, kMiB)).mapping == Mapping::kUnallocated);
  CHECK(must(block->status(0, kMiB)).length == 512);
  CHECK(must(block->status(512, kMiB)).length == 1024);
  CHECK(must(block->status(2 * kMiB, kMiB)).mapping == Mapping::kZero);
  CHECK(must(block->status(3 * kMiB + 4096, kMiB)).length == 8192);
  // What hid the parent goes on hiding it, and a block with all its sectors needs no bitmap.
  must(block->write(2 * kMiB + 512, Image(512, std::byte{3})));
  must(block->write(1536, Image(kMiB - 1536, std::byte{1})));
  must(block->write(0, Image(512, std::byte{1})));
  must(block->flush());
  CHECK(state(2) == BlockState::kPresent);
  CHECK(must(block->status(2 * kMiB, kMiB)).length == kMiB);
  CHECK(state(0) == BlockState::kPresent);
}

TEST_CASE("what a bitmap says of a block that is not there counts for nothing once it is") {
  Image image = child_of({{"parent_linkage", guid_text(id_of(2), true)}, {"relative_path", "base.vhdx"}});
  std::fill_n(image.begin() + static_cast<std::ptrdiff_t>(kDataAt + 2 * kMiB + 3 * kMiB / 512 / 8), kMiB / 512 / 8,
              std::byte{0xff});
  MemoryFile file(image);
  auto block = open_writable(file);
  CHECK(must(block->status(3 * kMiB, kMiB)).mapping == Mapping::kUnallocated);
  must(block->write(3 * kMiB + 1024, Image(512, std::byte{1})));
  must(block->flush());
  block = open_readable(file);
  CHECK(must(block->status(3 * kMiB, kMiB)).length == 1024);
  CHECK(must(block->status(3 * kMiB, kMiB)).mapping == Mapping::kUnallocated);
  CHECK(must(block->status(3 * kMiB + 1024, kMiB)).length == 512);
  CHECK(must(block->status(3 * kMiB + 1536, kMiB)).mapping == Mapping::kUnallocated);
}

TEST_CASE("a write of a part of a sector takes the rest of it from the parent") {
  for (const std::uint32_t sector : {512u, 4096u}) {
    const testing::TempDir directory;
    PlanOptions below = disk(kChildDisk);
    below.sector_size = sector;
    MemoryFile base(planned(below));
    {
      auto block = open_writable(base);
      must(block->write(0, testing::pattern(kChildDisk, 3)));
      must(block->flush());
    }
    testing::put(directory.file("base.vhdx"), base.bytes());
    Operation operation;
    CreateOptions options{.format = VhdxCreate{.block_size = kMiB}};
    options.backing = BackingOption{.path = "base.vhdx", .format = DiskFormat::kVhdx};
    const std::string child = directory.file("child.vhdx");
    must(create_image(child, options, operation.context));
    const auto opened = must(OpenImage::open(child, {}, operation.context));
    std::string expected = must(testing::guest_bytes(directory.file("base.vhdx"), DiskFormat::kVhdx));
    const Image data = testing::pattern(100, 9);
    must(opened->write(4000, data));
    std::memcpy(expected.data() + 4000, data.data(), data.size());
    must(opened->zero(2 * kMiB + 4097, 5));
    std::fill_n(expected.begin() + 2 * kMiB + 4097, 5, '\0');
    must(opened->close());
    CHECK(must(testing::guest_bytes(child, DiskFormat::kVhdx)) == expected);
    CHECK(must(check_image(child, {}, operation.context)).corruptions == 0);
  }
}

TEST_CASE("more bitmaps and blocks of a differencing vhdx than the log holds are changed in several steps") {
  // A chunk of 4 GiB has a bitmap, and its entry lies in another page than those of its first blocks.
  const testing::TempDir directory;
  const std::string path = directory.file("a.vhdx");
  const PlanOptions options = over(disk(std::uint64_t{1} << 39), "base.vhdx");
  std::vector<std::byte> scratch(must(plan_scratch_size(options)));
  testing::put(path, testing::apply(must(plan_vhdx(options, scratch))));
  PosixFile file(UniqueFd(::open(path.c_str(), O_RDWR | O_CLOEXEC)), path);
  constexpr std::uint64_t kStep = std::uint64_t{4} << 30;
  {
    auto block = open_writable(file);
    for (std::uint64_t at = 0; at < options.virtual_size; at += kStep)
      must(block->write(at, testing::pattern(512, at)));
    must(block->flush());
  }
  auto block = open_writable(file);
  for (std::uint64_t at = 0; at < options.virtual_size; at += kStep) {
    CHECK(must(block->status(at, kMiB)).length == 512);
    Image out(512);
    must(block->read(at, out));
    REQUIRE(out == testing::pattern(512, at));
  }
  CheckReport report = testing::check(*block);
  CHECK(report.corruptions + report.leaks == 0);
  CHECK(report.allocated_clusters == 128);
  must(block->make_empty());
  report = testing::check(*open_readable(file));
  CHECK(report.corruptions + report.leaks + report.allocated_clusters == 0);
  CHECK(must(file.size()) < 16 * kMiB);
}

TEST_CASE("I37: killed at any write or sync, a differencing vhdx shows the parent's sector or its own") {
  const Image empty = planned(over(disk(2 * kMiB), "base.vhdx"));
  testing::survive(empty, open_either, [](Block& block) {
    must(block.write(512 * 3, testing::pattern(4096, 1)));
    must(block.flush());
    must(block.write(512 * 40, testing::pattern(512, 3)));
    must(block.write(kMiB - 512, testing::pattern(1024, 4)));
  });
  MemoryFile file(empty);
  {
    auto block = open_writable(file);
    must(block->write(512, testing::pattern(kMiB - 1024, 5)));
    must(block->flush());
  }
  testing::survive(file.bytes(), open_either, [](Block& block) {
    must(block.write_zeros(0, 512));
    must(block.write_zeros(kMiB, kMiB));
    must(block.flush());
    must(block.write(kMiB - 512, testing::pattern(512, 6)));
    must(block.write(kMiB + 4096, testing::pattern(512, 7)));
  });
  testing::survive(file.bytes(), open_either, [](Block& block) { must(block.make_empty()); });
}

TEST_CASE("I38: a write to a differencing vhdx that fails midway is a typed error, and the image is sound") {
  testing::fail_midway(planned(over(disk(2 * kMiB), "base.vhdx")), open_either, [](Block& block) -> Status {
    TRY(block.write(512 * 3, testing::pattern(4096, 1)));
    TRY(block.flush());
    TRY(block.write_zeros(0, 1024));
    return block.write(kMiB, testing::pattern(1024, 3));
  });
}

TEST_CASE("what was given up leaves neither bytes nor space behind in a differencing vhdx") {
  MemoryFile file(planned(over(disk(kChildDisk), "base.vhdx")));
  auto block = open_writable(file);
  must(block->write(0, testing::pattern(512, 1)));
  must(block->flush());
  const std::size_t kept = file.bytes().size();
  must(block->write(1024, testing::pattern(512, 1)));
  must(block->write(2 * kMiB, testing::pattern(kMiB + 512, 2)));
  block->abandon();
  CHECK(file.bytes().size() == kept);
  auto again = open_readable(file);
  const CheckReport report = testing::check(*again);
  CHECK(report.corruptions + report.leaks == 0);
  CHECK(must(again->status(0, 4096)).length == 512);
  CHECK(must(again->status(512, 4096)).mapping == Mapping::kUnallocated);
}

TEST_CASE("I32, I46: a block that is partly there without its bitmap is told by check, and the image is not written") {
  Image image = child_of({{"parent_linkage", guid_text(id_of(2), true)}, {"relative_path", "base.vhdx"}});
  set_table_entry(image, TableShape(kChildDisk, kMiB, 512, true).entry_of_bitmap(0), 0);
  MemoryFile file(image);
  auto block = open_writable(file);
  const CheckReport report = testing::check(*block);
  CHECK(report.corruptions == 1);
  CHECK(report.problems.front().kind == "bitmap-missing");
  CHECK(block->write(0, Image(512)).error().code == ErrorCode::kImageCorrupt);
  CHECK(block->write_zeros(0, 512).error().code == ErrorCode::kImageCorrupt);
  CHECK(file.bytes() == image);
}

TEST_CASE("I12, I46: a bitmap or a locator that cannot be right is a typed error") {
  const Image parent = parent_image();
  const Pairs pairs = {{"parent_linkage", linkage_of(parent)}, {"relative_path", "base.vhdx"}};
  const TableShape shape(kChildDisk, kMiB, 512, true);
  for (const std::uint64_t entry : {std::uint64_t{0}, entry_of(BlockState::kPresent, std::uint64_t{1} << 40),
                                    entry_of(BlockState::kPresent, kDataAt + kMiB), std::uint64_t{3}}) {
    CAPTURE(entry);
    Image image = child_of(pairs);
    set_table_entry(image, shape.entry_of_bitmap(0), entry);
    MemoryFile file(image);
    auto block = open_readable(file);
    Image out(512);
    CHECK(block->read(kMiB + 512, out).error().code == ErrorCode::kImageCorrupt);
    CHECK(block->read(0, out).ok());
  }
  Image cut = child_of(pairs);
  store_le16(cut.data() + kMetadataAt + kMetadataTableBytes + 4096 + 18, 0xffff);
  MemoryFile file(cut);
  CHECK(open_vhdx(file, {}).error().code == ErrorCode::kImageCorrupt);
  Image other = child_of(pairs);
  store_guid(other.data() + kMetadataAt + kMetadataTableBytes + 4096, id_of(5));
  MemoryFile unknown(other);
  CHECK(open_vhdx(unknown, {}).error().code == ErrorCode::kUnsupported);
}

TEST_CASE("I14, I20: a vhdx is created over a vhdx, of its size and sectors, and stands on it by its name and its id") {
  for (const std::uint32_t sector : {512u, 4096u}) {
    const testing::TempDir directory;
    std::filesystem::create_directory(directory.file("bases"));
    const std::string base = directory.file("bases/base.vhdx");
    PlanOptions planned_base = disk(kChildDisk);
    planned_base.sector_size = sector;
    MemoryFile file(planned(planned_base));
    {
      auto block = open_writable(file);
      must(block->write(0, testing::pattern(kMiB, 1)));
      must(block->flush());
    }
    testing::put(base, file.bytes());
    const std::string whole = must(testing::guest_bytes(base, DiskFormat::kVhdx));
    Operation operation;
    for (const std::string& named : {std::string("bases/base.vhdx"), base}) {
      CAPTURE(named);
      CreateOptions options{.overwrite = true, .format = VhdxCreate{}};
      options.backing = BackingOption{.path = named, .format = DiskFormat::kVhdx};
      const std::string child = directory.file("child.vhdx");
      const ImageInfo info = must(create_image(child, options, operation.context));
      CHECK(info.virtual_bytes == kChildDisk);
      REQUIRE(info.backing);
      CHECK(info.backing->path == named);
      CHECK(info.backing->resolved_path == base);
      CHECK(must(testing::guest_bytes(child, DiskFormat::kVhdx)) == whole);
      CHECK(must(check_image(child, {}, operation.context)).leaks == 0);
      const Layer opened = must(open_layer(child, std::nullopt, Access::kRead, operation.context));
      CHECK(opened.block->allocation_unit() == sector);
      options.backing->path = "child.vhdx";
      options.size = kChildDisk * 2;
      CHECK(create_image(directory.file("top.vhdx"), options, operation.context).ok());
      CHECK(must(testing::guest_bytes(directory.file("top.vhdx"), DiskFormat::kVhdx)) ==
            whole + std::string(kChildDisk, '\0'));
    }
  }
}

TEST_CASE("a vhdx over another format, over nothing, or over what was not opened, is refused by name and not there") {
  const testing::TempDir directory;
  testing::put(directory.file("base.vhdx"), parent_image());
  Operation operation;
  const auto refused = [&](CreateOptions options) {
    const auto made = create_image(directory.file("child.vhdx"), options, operation.context);
    REQUIRE_FALSE(made.ok());
    CHECK_FALSE(std::filesystem::exists(directory.file("child.vhdx")));
    return made.error().code;
  };
  CreateOptions options{.format = VhdxCreate{}};
  for (const DiskFormat format : {DiskFormat::kRaw, DiskFormat::kQcow2, DiskFormat::kVmdk, DiskFormat::kVhd}) {
    options.backing = BackingOption{.path = "base.vhdx", .format = format};
    CHECK(refused(options) == ErrorCode::kUnsupported);
  }
  options.backing = BackingOption{.path = "gone.vhdx", .format = DiskFormat::kVhdx};
  CHECK(refused(options) == ErrorCode::kImageNotFound);
  options.backing->path = "base.vhdx";
  options.format = VhdxCreate{.fixed = true};
  CHECK(refused(options) == ErrorCode::kUnsupported);
  options = {.size = 1 << 20, .backing = options.backing, .unchecked_backing = true, .format = VhdxCreate{}};
  CHECK(refused(options) == ErrorCode::kUnsupported);
}

TEST_CASE("I37, I22: killed at any write or sync, a vhdx names its old parent or the new one, whole") {
  const std::string old_id = guid_text(id_of(2), true);
  const std::string new_id = guid_text(id_of(0x33), true);
  const Image theirs = child_of({{"parent_linkage", "{" + old_id + "}"},
                                 {"relative_path", "base.vhdx"},
                                 {"absolute_win32_path", "C:\\base.vhdx"}});
  for (const Image& start : {planned(over(disk(kMiB), "base.vhdx")), theirs}) {
    for (const std::size_t length : {1u, 1023u}) {
      CAPTURE(length);
      const std::string name(length, 'n');
      MemoryFile file(start);
      const Image before = testing::read_all(*open_readable(file));
      file.start_journal();
      must(open_writable(file)->set_backing(BackingReference{.path = name, .format = "vhdx", .content_id = new_id}));
      for (std::size_t events = 0; events <= file.journal().size(); ++events) {
        for (std::uint64_t seed = 0; seed < 5; ++seed) {
          CAPTURE(events);
          CAPTURE(seed);
          MemoryFile crashed(file.after_crash(events, seed));
          auto block = open_readable(crashed);
          const std::string path = block->backing()->path;
          REQUIRE((path == "base.vhdx" || path == name));
          REQUIRE(std::get<std::string>(block->info().specific.back().value) == (path == name ? new_id : old_id));
          REQUIRE(testing::check(*block).corruptions == 0);
          REQUIRE(testing::read_all(*block) == before);
          must(open_writable(crashed)->set_backing(BackingReference{.path = "third.vhdx", .format = "vhdx"}));
          REQUIRE(open_readable(crashed)->backing()->path == "third.vhdx");
        }
      }
    }
  }
}

TEST_CASE("a vhdx that is told its parent's new id keeps all of its names; another parent takes their place") {
  MemoryFile file(child_of({{"parent_linkage", guid_text(id_of(2), true)},
                            {"parent_linkage2", guid_text(id_of(4), true)},
                            {"relative_path", ".\\base.vhdx"},
                            {"volume_path", "\\\\?\\Volume{12}\\base.vhdx"},
                            {"absolute_win32_path", "C:\\base.vhdx"}}));
  const auto names = [&] {
    PlacedLocator found = locator_in(file.bytes());
    return must(parse_parent_locator(found.item));
  };
  auto block = open_writable(file);
  must(block->set_backing(
      BackingReference{.path = "base.vhdx", .format = "vhdx", .content_id = guid_text(id_of(5), true)}));
  CHECK(names().linkage == std::vector<std::string>{guid_text(id_of(5), true)});
  CHECK(names().relative == ".\\base.vhdx");
  CHECK(names().absolute == "C:\\base.vhdx");
  CHECK(names().volume == "\\\\?\\Volume{12}\\base.vhdx");
  must(block->set_backing(BackingReference{.path = "../new.vhdx", .format = "vhdx"}));
  CHECK(names().linkage == std::vector<std::string>{guid_text(id_of(5), true)});
  CHECK(names().relative == "..\\new.vhdx");
  CHECK_FALSE(names().absolute);
  CHECK_FALSE(names().volume);
}

TEST_CASE("I22: a longer name of a vhdx's parent damages no neighbour, and without room for it it is refused") {
  const Image start = planned(over(disk(kMiB), "base.vhdx"));
  const auto with_neighbour = [&](std::uint32_t offset, std::uint32_t length) {
    Image image = start;
    std::byte* entry = image.data() + kMetadataAt + 32 + 6 * 32;
    store_le16(image.data() + kMetadataAt + 10, 7);
    store_guid(entry, id_of(9));  // nobody needs to know it
    store_le32(entry + 16, offset);
    store_le32(entry + 20, length);
    std::fill_n(image.begin() + static_cast<std::ptrdiff_t>(kMetadataAt + offset), length, std::byte{0x77});
    return image;
  };
  const PlacedLocator old = locator_in(start);
  const auto behind = static_cast<std::uint32_t>(old.offset + old.item.size());
  const BackingReference longer{.path = std::string(900, 'n'), .format = "vhdx"};
  MemoryFile file(with_neighbour(behind, 64));
  must(open_writable(file)->set_backing(longer));
  CHECK(open_readable(file)->backing()->path == longer.path);
  CHECK(locator_in(file.bytes()).offset >= behind + 64);
  CHECK(std::ranges::all_of(Bytes(file.bytes()).subspan(kMetadataAt + behind, 64),
                            [](std::byte each) { return each == std::byte{0x77}; }));
  const Image full = with_neighbour(behind, static_cast<std::uint32_t>(kMiB - behind));
  MemoryFile crowded(full);
  auto block = open_writable(crowded);
  CHECK(block->can_set_backing(longer).error().code == ErrorCode::kInvalidArgument);
  CHECK(block->set_backing(longer).error().code == ErrorCode::kInvalidArgument);
  CHECK(crowded.bytes() == full);
}

}  // namespace sluicebox::image::vhdx
