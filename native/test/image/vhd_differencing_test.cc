#include <sys/stat.h>

#include "image/ops/check.h"
#include "image/ops/commit.h"
#include "image/ops/create.h"
#include "image/ops/info.h"
#include "image/utf16.h"
#include "test/image/operation.h"
#include "test/image/vhd_fixture.h"

namespace sluicebox::image::vhd {
namespace {

using testing::Operation;

constexpr std::uint64_t kChildDisk = 2 << 20;
constexpr std::uint64_t kLocatorAt = 8192;

struct Named {
  std::uint32_t code;
  std::string name;
};

// A differencing image over the vhd of `parent`, without a block of its own.
Image child_of(const Guid& parent, const std::vector<Named>& names) {
  Image image = planned(dynamic_disk(kChildDisk));
  const Image footer(image.end() - kFooterBytes, image.end());
  image.resize(image.size() - kFooterBytes);
  image.resize(kLocatorAt);
  edit_header(image, [&](DynamicHeader& header) {
    header.parent_id = parent;
    for (std::size_t i = 0; i < names.size(); ++i) {
      const auto text = names[i].code == kMacUrl
                            ? std::optional(Image(as_bytes(names[i].name).begin(), as_bytes(names[i].name).end()))
                            : utf16_of_utf8(names[i].name, /*big_endian=*/false);
      header.locators[i] = {.code = names[i].code,
                            .space = 512,
                            .length = static_cast<std::uint32_t>(text->size()),
                            .offset = image.size()};
      const std::size_t at = image.size();
      image.resize(at + 512);
      std::ranges::copy(*text, image.begin() + static_cast<std::ptrdiff_t>(at));
    }
  });
  image.insert(image.end(), footer.begin(), footer.end());
  edit_footers(image, [](Footer& each) {
    each.type = DiskType::kDifferencing;
    each.id = id_of(0x22);
  });
  return image;
}

Image parent_image() {
  MemoryFile file(planned(dynamic_disk(kChildDisk)));
  auto block = open_writable(file);
  must(block->write(0, testing::pattern(kChildDisk - kSmallBlock, 1)));
  must(block->flush());
  return file.bytes();
}

// The child's own sectors, written here: 3 to 5 of its first block.
Image written_child(const std::vector<Named>& names) {
  MemoryFile file(child_of(id_of(0x11), names));
  auto block = open_writable(file);
  must(block->write(3 * 512, testing::pattern(3 * 512, 7)));
  must(block->flush());
  return file.bytes();
}

std::string text_of(const Image& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};  // byte to char
}

Image expected_disk() {
  Image disk = testing::pattern(kChildDisk - kSmallBlock, 1);
  disk.resize(kChildDisk);
  std::ranges::copy(testing::pattern(3 * 512, 7), disk.begin() + 3 * 512);
  return disk;
}

}  // namespace

TEST_CASE("I55: a differencing vhd reads as its parent plus its own sectors, whichever way it names it") {
  const std::vector<std::vector<Named>> all_names = {
      {{kRelativeWindows, ".\\bases\\base.vhd"}},
      {{kAbsoluteWindows, "C:\\elsewhere\\side.vhd"}},
      {{kAbsoluteWindows, "D:\\gone.vhd"}, {kRelativeWindows, "bases\\base.vhd"}},
      {{kMacUrl, "file://./bases/base.vhd"}},
  };
  for (const std::vector<Named>& names : all_names) {
    CAPTURE(names.front().name);
    const testing::TempDir directory;
    std::filesystem::create_directory(directory.file("bases"));
    testing::put(directory.file("bases/base.vhd"), parent_image());
    testing::put(directory.file("side.vhd"), parent_image());
    testing::put(directory.file("child.vhd"), written_child(names));
    const auto bytes = testing::guest_bytes(directory.file("child.vhd"), DiskFormat::kVhd);
    REQUIRE_MESSAGE(bytes.ok(), bytes.error().message);
    CHECK(bytes.value() == text_of(expected_disk()));
    Operation operation;
    const ImageInfo info = must(image_info(directory.file("child.vhd"), {.chain = true}, operation.context));
    CHECK(info.format == DiskFormat::kVhd);
    REQUIRE(info.chain.size() == 2);
    CHECK(info.backing->exists);
    const CheckReport report = must(check_image(directory.file("child.vhd"), {}, operation.context));
    CHECK(report.corruptions + report.leaks == 0);
  }
}

TEST_CASE("I55: without its parent, or with another one in its place, a differencing vhd is IMAGE_CHAIN, never zeros") {
  const testing::TempDir directory;
  const std::string child = directory.file("child.vhd");
  testing::put(child, written_child({{kRelativeWindows, ".\\base.vhd"}}));
  const auto refused = [&] {
    const auto bytes = testing::guest_bytes(child, DiskFormat::kVhd);
    REQUIRE_FALSE(bytes.ok());
    return bytes.error().code;
  };
  CHECK(refused() == ErrorCode::kImageChain);
  Image other = parent_image();
  edit_footers(other, [](Footer& footer) { footer.id = id_of(0x33); });
  testing::put(directory.file("base.vhd"), other);
  CHECK(refused() == ErrorCode::kImageChain);
  testing::put(directory.file("base.vhd"), parent_image());
  CHECK(testing::guest_bytes(child, DiskFormat::kVhd).ok());
  // Info tells what it names, whether or not that is there.
  std::filesystem::remove(directory.file("base.vhd"));
  Operation operation;
  const ImageInfo info = must(image_info(child, {}, operation.context));
  CHECK(info.backing->path == "base.vhd");
  CHECK_FALSE(info.backing->exists);
  // Without a name that can be made out, nothing but its info is to be had.
  testing::put(child, child_of(id_of(0x11), {}));
  CHECK(refused() == ErrorCode::kImageChain);
  CHECK(image_info(child, {}, operation.context).ok());
  CHECK(image_info(child, {.chain = true}, operation.context).error().code == ErrorCode::kImageChain);
}

TEST_CASE("I43: a parent locator obeys the path policy: what lies elsewhere is not opened") {
  const testing::TempDir directory, outside;
  testing::put(outside.file("secret.vhd"), parent_image());
  const std::string child = directory.file("child.vhd");
  for (const std::string& name :
       {"..\\" + outside.path().substr(outside.path().rfind('/') + 1) + "\\secret.vhd", outside.file("secret.vhd")}) {
    CAPTURE(name);
    testing::put(child, written_child({{kRelativeWindows, name}}));
    Operation operation;
    const auto info = image_info(child, {.chain = true}, operation.context);
    REQUIRE_FALSE(info.ok());
    CHECK(info.error().code == ErrorCode::kPathRefused);
    Operation trusting({outside.path()});
    CHECK(image_info(child, {.chain = true}, trusting.context).ok());
  }
  testing::put(child, written_child({{kRelativeWindows, "nbd:somewhere"}}));
  Operation operation;
  CHECK(image_info(child, {.chain = true}, operation.context).error().code == ErrorCode::kPathRefused);
}

TEST_CASE("I26: a differencing vhd that names itself is IMAGE_CHAIN") {
  const testing::TempDir directory;
  const std::string child = directory.file("child.vhd");
  testing::put(child, written_child({{kRelativeWindows, "child.vhd"}}));
  Operation operation;
  CHECK(image_info(child, {.chain = true}, operation.context).error().code == ErrorCode::kImageChain);
}

TEST_CASE("I37: killed at any write or sync, a differencing vhd shows the parent's sector or its own") {
  const Image start = written_child({{kRelativeWindows, ".\\base.vhd"}});
  testing::survive(start, open_either, [](Block& block) {
    must(block.write(0, testing::pattern(512, 8)));
    must(block.write(3 * kSmallBlock, testing::pattern(2048, 9)));
    must(block.flush());
    must(block.write_zeros(kSmallBlock, 1024));
    CHECK(must(block.status(kSmallBlock, 4096)).mapping == Mapping::kData);
    CHECK(must(block.status(kSmallBlock + 1024, 512)).mapping == Mapping::kUnallocated);
  });
  testing::survive(start, open_either, [](Block& block) { must(block.make_empty()); });
}

TEST_CASE("I33: a differencing vhd is committed into its parent, and is empty then") {
  const testing::TempDir directory;
  testing::put(directory.file("base.vhd"), parent_image());
  const std::string child = directory.file("child.vhd");
  testing::put(child, written_child({{kRelativeWindows, ".\\base.vhd"}}));
  const std::string before = must(testing::guest_bytes(child, DiskFormat::kVhd));
  Operation operation;
  const CommitResult result = must(commit_image(child, {}, operation.context));
  CHECK(result.bytes_committed == 3 * 512);
  CHECK(must(testing::guest_bytes(child, DiskFormat::kVhd)) == before);
  CHECK(must(testing::guest_bytes(directory.file("base.vhd"), DiskFormat::kVhd)) == before);
  CHECK(testing::guest_bytes_by_qemu(directory.file("base.vhd"), "vpc", directory.file("raw")) == before);
  CHECK(must(check_image(child, {}, operation.context)).allocated_clusters == 0);
}

TEST_CASE("I14: a qcow2 overlay over a vhd records it as qemu-img names it, and both read the same") {
  const testing::TempDir directory;
  testing::put(directory.file("base.vhd"), parent_image());
  Operation operation;
  CreateOptions options{.format = Qcow2Create{}};
  options.backing = BackingOption{.path = "base.vhd", .format = DiskFormat::kVhd};
  const ImageInfo info = must(create_image(directory.file("over.qcow2"), options, operation.context));
  CHECK(info.virtual_bytes == kChildDisk);
  CHECK(info.backing->format == "vpc");
  const std::string ours = must(testing::guest_bytes(directory.file("over.qcow2"), DiskFormat::kQcow2));
  CHECK(ours == testing::guest_bytes_by_qemu(directory.file("over.qcow2"), "qcow2", directory.file("raw")));
}

TEST_CASE("I14, I20: a vhd is created over a vhd, of its size, and stands on it by its name and its id") {
  const testing::TempDir directory;
  std::filesystem::create_directory(directory.file("bases"));
  const std::string base = directory.file("bases/base.vhd");
  testing::put(base, parent_image());
  const std::string whole = must(testing::guest_bytes(base, DiskFormat::kVhd));
  Operation operation;
  for (const std::string& named : {std::string("bases/base.vhd"), base}) {
    CAPTURE(named);
    CreateOptions options{.overwrite = true, .format = VhdCreate{}};
    options.backing = BackingOption{.path = named, .format = DiskFormat::kVhd};
    const std::string child = directory.file("child.vhd");
    const ImageInfo info = must(create_image(child, options, operation.context));
    CHECK(info.virtual_bytes == kChildDisk);
    REQUIRE(info.backing);
    CHECK(info.backing->path == named);
    CHECK(info.backing->resolved_path == base);
    CHECK(must(testing::guest_bytes(child, DiskFormat::kVhd)) == whole);
    CHECK(must(check_image(child, {}, operation.context)).leaks == 0);
    PosixFile file(UniqueFd(::open(child.c_str(), O_RDONLY | O_CLOEXEC)), child);
    std::vector<std::byte> raw(kHeaderBytes);
    must(read_exact(file, kFooterBytes, raw, "the header"));
    struct stat written = {};
    REQUIRE(::stat(base.c_str(), &written) == 0);
    CHECK(must(parse_dynamic_header(raw)).parent_time == timestamp_of(written.st_mtime));
    // And one over that one.
    options.backing->path = "child.vhd";
    options.size = kChildDisk * 2;
    CHECK(must(create_image(directory.file("top.vhd"), options, operation.context)).virtual_bytes == kChildDisk * 2);
    CHECK(must(testing::guest_bytes(directory.file("top.vhd"), DiskFormat::kVhd)) ==
          whole + std::string(kChildDisk, '\0'));
  }
}

TEST_CASE("a vhd over another format, over nothing, or over what was not opened, is refused by name and not there") {
  const testing::TempDir directory;
  testing::put(directory.file("base.vhd"), parent_image());
  Operation operation;
  const auto refused = [&](CreateOptions options) {
    const auto made = create_image(directory.file("child.vhd"), options, operation.context);
    REQUIRE_FALSE(made.ok());
    CHECK_FALSE(std::filesystem::exists(directory.file("child.vhd")));
    return made.error().code;
  };
  CreateOptions options{.format = VhdCreate{}};
  for (const DiskFormat format : {DiskFormat::kRaw, DiskFormat::kQcow2, DiskFormat::kVmdk, DiskFormat::kVhdx}) {
    options.backing = BackingOption{.path = "base.vhd", .format = format};
    CHECK(refused(options) == ErrorCode::kUnsupported);
  }
  options.backing = BackingOption{.path = "gone.vhd", .format = DiskFormat::kVhd};
  CHECK(refused(options) == ErrorCode::kImageNotFound);
  options.backing->path = "base.vhd";
  options.format = VhdCreate{.fixed = true};
  CHECK(refused(options) == ErrorCode::kUnsupported);
  options = {.size = 1 << 20, .backing = options.backing, .unchecked_backing = true, .format = VhdCreate{}};
  CHECK(refused(options) == ErrorCode::kUnsupported);
}

TEST_CASE(
    "I37, I22: killed at any write or sync, a vhd names its old parent or the new one, whole, and its own bytes stay") {
  const std::string old_id = guid_text(id_of(0x11), false);
  const std::string new_id = guid_text(id_of(0x33), false);
  // As others write them, with a block right behind a short name; and as this engine does.
  const Image theirs = written_child({{kRelativeWindows, ".\\base.vhd"}, {kAbsoluteWindows, "C:\\base.vhd"}});
  MemoryFile planned_here(planned(over(dynamic_disk(kChildDisk), "base.vhd")));
  {
    auto block = open_writable(planned_here);
    must(block->write(3 * 512, testing::pattern(3 * 512, 7)));
    must(block->flush());
  }
  for (const Image& start : {theirs, planned_here.bytes()}) {
    for (const std::size_t length : {1u, 300u, 1023u}) {
      CAPTURE(length);
      const std::string name(length, 'n');
      MemoryFile file(start);
      const Image before = testing::read_all(*open_readable(file));
      file.start_journal();
      must(open_writable(file)->set_backing(BackingReference{.path = name, .format = "vhd", .content_id = new_id}));
      CHECK(open_readable(file)->backing()->path == name);
      for (std::size_t events = 0; events <= file.journal().size(); ++events) {
        for (std::uint64_t seed = 0; seed < 8; ++seed) {
          CAPTURE(events);
          CAPTURE(seed);
          MemoryFile crashed(file.after_crash(events, seed));
          auto block = open_readable(crashed);
          const std::string path = block->backing()->path;
          REQUIRE((path == "base.vhd" || path == name));
          REQUIRE(std::get<std::string>(block->info().specific.back().value) == (path == name ? new_id : old_id));
          REQUIRE(testing::read_all(*block) == before);
          REQUIRE(testing::check(*block).corruptions == 0);
          // And it can be changed again, from wherever its header lies now.
          auto writer = open_writable(crashed);
          must(writer->set_backing(BackingReference{.path = "third.vhd", .format = "vpc", .content_id = old_id}));
          must(writer->write(0, testing::pattern(512, 8)));
          must(writer->flush());
          block = open_readable(crashed);
          REQUIRE(block->backing()->path == "third.vhd");
          REQUIRE(testing::check(*block).corruptions == 0);
        }
      }
    }
  }
  // Names come and go in the room of the first one.
  MemoryFile steady(planned_here.bytes());
  for (const std::size_t length : {1023u, 1u, 500u}) {
    must(open_writable(steady)->set_backing(BackingReference{.path = std::string(length, 'n'), .format = "vhd"}));
    CHECK(steady.bytes().size() == planned_here.bytes().size());
    CHECK(load_be64(steady.bytes().data() + footer_at::kDataOffset) == kFooterBytes);
  }
}

TEST_CASE("I38: a change of a vhd's parent that fails midway is a typed error, and the image is sound") {
  testing::fail_midway(written_child({{kRelativeWindows, ".\\base.vhd"}}), open_either, [](Block& block) {
    return block.set_backing(BackingReference{.path = "another.vhd", .format = "vhd"});
  });
}

}  // namespace sluicebox::image::vhd
