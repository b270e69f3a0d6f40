#include "test/image/vhd_fixture.h"

namespace sluicebox::image::vhd {
namespace {

template <typename Visit>
void for_every_vhd_shape(Visit visit) {
  for (const bool fixed : {false, true}) {
    for (const std::uint64_t block : {kMinBlockBytes, std::uint64_t{kDefaultBlockBytes}, kMaxBlockBytes}) {
      if (fixed && block != kMinBlockBytes) continue;
      for (const std::uint64_t size : {std::uint64_t{0}, std::uint64_t{512}, std::uint64_t{12345 * 512},
                                       std::uint64_t{1} << 30, std::uint64_t{127} << 30, kMaxDiskBytes}) {
        if (fixed && size == 0) continue;
        PlanOptions options = fixed ? fixed_disk(size) : dynamic_disk(size, block);
        CAPTURE(fixed);
        CAPTURE(block);
        CAPTURE(size);
        visit(options);
        if (!fixed) visit(over(options, std::string(250, 'p') + "/base.vhd"));
      }
    }
  }
}

}  // namespace

TEST_CASE("I1, I2, I3, I4, I7, I8: the bookkeeping of every vhd plan") {
  for_every_vhd_shape([](const PlanOptions& options) {
    const std::size_t need = must(plan_scratch_size(options));
    CHECK(need <= kImagePlanScratchBytes);
    std::vector<std::byte> scratch(need, std::byte{0x77});
    testing::check_bookkeeping(must(plan_vhd(options, scratch)), scratch);
    std::vector<std::byte> twin(need, std::byte{0x55});
    must(plan_vhd(options, twin));
    CHECK(scratch == twin);
    std::vector<std::byte> small(need, std::byte{0x77});
    const auto refused = plan_vhd(options, MutableBytes(small).first(need - 1));
    REQUIRE_FALSE(refused.ok());
    CHECK(refused.error().code == ErrorCode::kInvalidArgument);
    CHECK(small.back() == std::byte{0x77});
  });
}

TEST_CASE("I5, I6, I10: the planned vhd has exactly the size asked for, is clean, and qemu-img reads the same") {
  const testing::TempDir directory;
  for_every_vhd_shape([&](const PlanOptions& options) {
    const std::string path = directory.file("a.vhd");
    std::vector<std::byte> scratch(must(plan_scratch_size(options)));
    const ImagePlan plan = must(plan_vhd(options, scratch));
    if (plan.minimum_file_size <= 64u << 20) {
      MemoryFile file(testing::apply(plan));
      auto block = open_readable(file);
      CHECK(block->size() == options.virtual_size);
      CHECK(block->backing().has_value() == !options.parent_path.empty());
      if (block->backing()) CHECK(block->backing()->path == options.parent_path);
      const CheckReport report = testing::check(*block);
      CHECK(report.corruptions + report.leaks == 0);
    }
    // Sparse, so that the largest of them take no room.
    std::ofstream(path, std::ios::binary | std::ios::trunc).close();
    PosixFile file(UniqueFd(::open(path.c_str(), O_RDWR | O_CLOEXEC)), path);
    bool fits = true;  // the file system may not take a file so long
    for (const ImagePlanWrite& write : plan.all()) fits = fits && file.write_at(write.offset, write.bytes).ok();
    if (!fits) return;
    CHECK(open_readable(file)->size() == options.virtual_size);
    const testing::RunResult info = testing::qemu_img({"info", "-f", "vpc", "--output=json", path});
    CAPTURE(info.output);
    CHECK(info.exit_code == 0);
    CHECK(info.output.find("\"virtual-size\": " + std::to_string(options.virtual_size) + ",") != std::string::npos);
  });
}

TEST_CASE("I6: an empty vhd is, but for its id and time, what qemu-img writes with force_size=on") {
  const testing::TempDir directory;
  for (const std::string subformat : {"dynamic", "fixed"}) {
    for (const std::uint64_t size : {std::uint64_t{512}, std::uint64_t{10} << 20, (std::uint64_t{3} << 20) + 512}) {
      CAPTURE(subformat);
      CAPTURE(size);
      const std::string path = directory.file("q.vhd");
      REQUIRE(testing::qemu_img({"create", "-q", "-f", "vpc", "-o", "force_size=on,subformat=" + subformat, path,
                                 std::to_string(size)})
                  .exit_code == 0);
      const std::string theirs = testing::slurp(path);
      Image expected(theirs.size());
      std::memcpy(expected.data(), theirs.data(), theirs.size());
      const Footer footer = must(parse_footer(Bytes(expected).last(kFooterBytes)));
      PlanOptions options = subformat == "fixed" ? fixed_disk(size) : dynamic_disk(size, kDefaultBlockBytes);
      options.id = footer.id;
      options.timestamp = footer.timestamp;
      CHECK(planned(options) == expected);
    }
  }
}

TEST_CASE("I9, I10: what a vhd cannot be is refused by the name of its option") {
  const auto refused = [](const PlanOptions& options, const char* key) {
    const auto size = plan_scratch_size(options);
    REQUIRE_FALSE(size.ok());
    CHECK(size.error().code == ErrorCode::kInvalidArgument);
    CHECK(size.error().message.find(key) != std::string::npos);
  };
  for (const std::uint64_t block :
       {std::uint64_t{0}, std::uint64_t{1}, kMinBlockBytes / 2, kMinBlockBytes + 512, kMaxBlockBytes * 2, UINT64_MAX}) {
    refused(dynamic_disk(1 << 20, block), "blockSize");
  }
  for (const std::uint64_t size : {std::uint64_t{1}, std::uint64_t{513}, kMaxDiskBytes + 1, kMaxDiskBytes + 512,
                                   std::uint64_t{1} << 63, UINT64_MAX, UINT64_MAX - 511}) {
    refused(dynamic_disk(size), "size");
    refused(fixed_disk(size), "size");
  }
  refused(fixed_disk(0), "size");
}

TEST_CASE("I11, I50: a planned vhd names its parent as it was named, by name and id and time, or it is refused") {
  const std::string longest = std::string(250, 'a') + "/" + std::string(250, 'b') + "/" + std::string(250, 'c') + "/" +
                              std::string(kMaxParentPath - 753, 'd');
  for (const std::string& path : {std::string("base.vhd"), std::string("../bases/base.vhd"),
                                  std::string("/srv/a b%20c#\xc3\xa4.vhd"), std::string("\xc3\xa4\xf0\x9f\x98\x80.vhd"),
                                  std::string(".hidden"), std::string("a:b"), longest, "/" + longest.substr(1)}) {
    CAPTURE(path);
    MemoryFile file(planned(over(dynamic_disk(1 << 20), path)));
    auto block = open_readable(file);
    CHECK(block->backing() == BackingReference{.path = path, .format = "vhd"});
    const DynamicHeader header = must(parse_dynamic_header(Bytes(file.bytes()).subspan(kFooterBytes, kHeaderBytes)));
    CHECK(header.parent_id == id_of(0x11));
    CHECK(header.parent_time == 7);
    CHECK(header.locators[0].space == kMaxNameBytes);
    // A footer would be no part of a name.
    CHECK(header.locators[0].offset + header.locators[0].space == file.bytes().size() - kFooterBytes);
  }
  CHECK(open_readable(*std::make_unique<MemoryFile>(planned(over(dynamic_disk(1 << 20), "./base.vhd"))))
            ->backing()
            ->path == "base.vhd");
  const auto code = [](const PlanOptions& options) {
    const auto size = plan_scratch_size(options);
    REQUIRE_FALSE(size.ok());
    CHECK(size.error().message.find("backing") != std::string::npos);
    return size.error().code;
  };
  for (const std::string& path : {longest + "d", std::string("a\\b"), std::string("a\0b", 3), std::string("/a\0b", 4),
                                  std::string("./"), std::string("\xff.vhd")}) {
    CAPTURE(path);
    CHECK(code(over(dynamic_disk(1 << 20), path)) == ErrorCode::kInvalidArgument);
  }
  CHECK(code(over(dynamic_disk(1 << 20), "base.vhd", 0)) == ErrorCode::kInvalidArgument);
  CHECK(code(over(dynamic_disk(1 << 20), "")) == ErrorCode::kInvalidArgument);
  CHECK(code(over(fixed_disk(1 << 20), "base.vhd")) == ErrorCode::kUnsupported);
}

}  // namespace sluicebox::image::vhd
