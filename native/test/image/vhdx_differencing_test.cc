#include "image/ops/check.h"
#include "image/ops/commit.h"
#include "image/ops/create.h"
#include "image/ops/info.h"
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

TEST_CASE("a differencing vhdx is not written: a write, a commit and a rebase refuse, and leave it as it is") {
  const testing::TempDir directory;
  const Image parent = parent_image();
  testing::put(directory.file("base.vhdx"), parent);
  const std::string child = directory.file("child.vhdx");
  const Image image = child_of({{"parent_linkage", linkage_of(parent)}, {"relative_path", "base.vhdx"}});
  testing::put(child, image);
  MemoryFile file(image);
  auto block = open_writable(file);
  CHECK(block->may_be_written(Writing::kBytes).error().code == ErrorCode::kUnsupported);
  CHECK(block->write(0, Image(512)).error().code == ErrorCode::kUnsupported);
  CHECK(block->write_zeros(0, 512).error().code == ErrorCode::kUnsupported);
  CHECK(file.bytes() == image);
  Operation operation;
  CHECK(commit_image(child, {}, operation.context).error().code == ErrorCode::kUnsupported);
  CHECK(testing::slurp(directory.file("base.vhdx")).size() == parent.size());
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

}  // namespace sluicebox::image::vhdx
