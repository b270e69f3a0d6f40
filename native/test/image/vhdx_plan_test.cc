#include "test/image/vhdx_fixture.h"

namespace sluicebox::image::vhdx {
namespace {

template <typename Visit>
void for_every_vhdx_shape(Visit visit) {
  for (const bool fixed : {false, true}) {
    for (const std::uint64_t block : {std::uint64_t{0}, kMinBlockBytes, 32 * kMiB, kMaxBlockBytes}) {
      for (const std::uint64_t log : {kMiB, kMaxLogBytes}) {
        for (const std::uint64_t size : {std::uint64_t{512}, std::uint64_t{12345 * 512}, std::uint64_t{1} << 30,
                                         std::uint64_t{101} << 30, kMaxDiskBytes}) {
          if (block == kMinBlockBytes && size == kMaxDiskBytes) continue;  // its table would be too large
          PlanOptions options = disk(size, block, fixed);
          options.log_size = log;
          CAPTURE(fixed);
          CAPTURE(block);
          CAPTURE(log);
          CAPTURE(size);
          visit(options);
          if (!fixed) visit(over(options, std::string(250, 'p') + "/base.vhdx"));
        }
      }
    }
  }
}

}  // namespace

TEST_CASE("the checksum is CRC-32C") {
  // RFC 3720 B.4.
  CHECK(crc32c(Image(32)) == 0x8a9136aa);
  CHECK(crc32c(Image(32, std::byte{0xff})) == 0x62a8ab43);
  CHECK(crc32c(as_bytes("123456789")) == 0xe3069283);
  CHECK(crc32c(as_bytes("789"), crc32c(as_bytes("123456"))) == 0xe3069283);
}

TEST_CASE("I1, I2, I3, I4, I7, I8: the bookkeeping of every vhdx plan") {
  for_every_vhdx_shape([](const PlanOptions& options) {
    const std::size_t need = must(plan_scratch_size(options));
    CHECK(need <= kImagePlanScratchBytes);
    std::vector<std::byte> scratch(need, std::byte{0x77});
    testing::check_bookkeeping(must(plan_vhdx(options, scratch)), scratch);
    std::vector<std::byte> twin(need, std::byte{0x55});
    must(plan_vhdx(options, twin));
    CHECK(scratch == twin);
    std::vector<std::byte> small(need, std::byte{0x77});
    const auto refused = plan_vhdx(options, MutableBytes(small).first(need - 1));
    REQUIRE_FALSE(refused.ok());
    CHECK(refused.error().code == ErrorCode::kInvalidArgument);
    CHECK(small.back() == std::byte{0x77});
  });
}

TEST_CASE("I5, I6, I10: the planned vhdx has exactly the size asked for, is clean, and qemu-img agrees") {
  const testing::TempDir directory;
  for_every_vhdx_shape([&](const PlanOptions& options) {
    const std::string path = directory.file("a.vhdx");
    std::vector<std::byte> scratch(must(plan_scratch_size(options)));
    const ImagePlan plan = must(plan_vhdx(options, scratch));
    // Sparse, so that the largest of them take no room.
    std::ofstream(path, std::ios::binary | std::ios::trunc).close();
    PosixFile file(UniqueFd(::open(path.c_str(), O_RDWR | O_CLOEXEC)), path);
    bool fits = true;  // the file system may not take a file so long
    for (const ImagePlanWrite& write : plan.all()) fits = fits && file.write_at(write.offset, write.bytes).ok();
    if (!fits) return;
    auto block = open_readable(file);
    CHECK(block->size() == options.virtual_size);
    CHECK(block->backing().has_value() == !options.parent_path.empty());
    if (block->backing()) CHECK(block->backing()->path == options.parent_path);
    const CheckReport report = testing::check(*block);
    CHECK(report.corruptions + report.leaks == 0);
    if (block->backing()) return;  // QEMU has no differencing ones
    const testing::RunResult info = testing::qemu_img({"info", "-f", "vhdx", "--output=json", path});
    CAPTURE(info.output);
    CHECK(info.exit_code == 0);
    CHECK(info.output.find("\"virtual-size\": " + std::to_string(options.virtual_size) + ",") != std::string::npos);
    CHECK(info.output.find("\"cluster-size\": " + std::to_string(*block->info().cluster_bytes) + ",") !=
          std::string::npos);
    const testing::RunResult checked = testing::qemu_img({"check", "-f", "vhdx", path});
    CAPTURE(checked.output);
    CHECK(checked.exit_code == 0);
  });
}

TEST_CASE("a vhdx without a block size given has the one that qemu-img chooses") {
  const testing::TempDir directory;
  for (const std::uint64_t gib :
       {std::uint64_t{1}, std::uint64_t{2}, std::uint64_t{100}, std::uint64_t{101}, std::uint64_t{33} << 10}) {
    CAPTURE(gib);
    const std::string path = directory.file("q.vhdx");
    REQUIRE(testing::qemu_img({"create", "-q", "-f", "vhdx", path, std::to_string(gib) + "G"}).exit_code == 0);
    PosixFile file(UniqueFd(::open(path.c_str(), O_RDWR | O_CLOEXEC)), path);
    CHECK(*open_readable(file)->info().cluster_bytes == default_block_size(gib << 30));
  }
}

TEST_CASE("I9, I10: what a vhdx cannot be is refused by the name of its option") {
  const auto refused = [](const PlanOptions& options, const char* key) {
    const auto size = plan_scratch_size(options);
    REQUIRE_FALSE(size.ok());
    CHECK(size.error().code == ErrorCode::kInvalidArgument);
    CHECK(size.error().message.find(key) != std::string::npos);
  };
  for (const std::uint64_t block : {std::uint64_t{1}, kMiB / 2, 3 * kMiB, 2 * kMaxBlockBytes, UINT64_MAX}) {
    refused(disk(1 << 20, block), "blockSize");
  }
  refused(disk(kMaxDiskBytes, kMiB), "blockSize");
  for (const std::uint64_t size : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{513}, kMaxDiskBytes + 512,
                                   std::uint64_t{1} << 63, UINT64_MAX}) {
    refused(disk(size), "size");
  }
  for (const std::uint64_t log : {std::uint64_t{0}, std::uint64_t{4096}, kMiB + 4096, kMaxLogBytes + kMiB}) {
    PlanOptions options = disk(1 << 20);
    options.log_size = log;
    refused(options, "logSize");
  }
  PlanOptions odd = disk(4096);
  odd.sector_size = 1024;
  refused(odd, "sectorSize");
  PlanOptions half = disk(512);
  half.sector_size = 4096;
  refused(half, "size");
}

TEST_CASE("I11, I50: a planned vhdx names its parent as it was named, by name and id, or it is refused") {
  const std::string longest = std::string(500, 'a') + "/" + std::string(kMaxParentPath - 501, 'b');
  for (const std::string& path :
       {std::string("base.vhdx"), std::string("../bases/base.vhdx"), std::string("/srv/\xc3\xa4 b.vhdx"),
        std::string("\xf0\x9f\x98\x80.vhdx"), std::string(".hidden"), std::string("a:b"), longest}) {
    CAPTURE(path);
    MemoryFile file(planned(over(disk(4 << 20), path)));
    auto block = open_readable(file);
    CHECK(block->backing() == BackingReference{.path = path, .format = "vhdx"});
    const auto parent_id = block->info().specific.back();
    CHECK(parent_id.name == "parent-id");
    CHECK(std::get<std::string>(parent_id.value) == guid_text(id_of(2), true));
    CHECK(must(block->status(0, 4 << 20)).mapping == Mapping::kUnallocated);
  }
  const auto code = [](const PlanOptions& options) {
    const auto size = plan_scratch_size(options);
    REQUIRE_FALSE(size.ok());
    CHECK(size.error().message.find("backing") != std::string::npos);
    return size.error().code;
  };
  for (const std::string& path : {longest + "b", std::string("a\\b"), std::string("a\0b", 3), std::string("./"),
                                  std::string("//a"), std::string("\xff")}) {
    CAPTURE(path);
    CHECK(code(over(disk(1 << 20), path)) == ErrorCode::kInvalidArgument);
  }
  CHECK(code(over(disk(1 << 20), "base.vhdx", 0)) == ErrorCode::kInvalidArgument);
  CHECK(code(over(disk(1 << 20), "")) == ErrorCode::kInvalidArgument);
  CHECK(code(over(disk(1 << 20, kMiB, true), "base.vhdx")) == ErrorCode::kUnsupported);
}

}  // namespace sluicebox::image::vhdx
