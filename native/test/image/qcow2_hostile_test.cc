#include <chrono>
#include <functional>

#include "test/image/qcow2_edit.h"

namespace sluicebox::image::qcow2 {
namespace {

// 64 KiB of disk in 4 KiB clusters, half of it written: header, refcount table, block, L1, L2 and data.
Image sample() {
  MemoryFile file(planned(disk(1 << 16, 4096)));
  auto block = open_writable(file);
  must(block->write(0, pattern(1 << 15, 1)));
  must(block->flush());
  return file.bytes();
}

struct Case {
  const char* name;
  std::function<void(Image&)> harm;
  ErrorCode expected;
};

}  // namespace

TEST_CASE("I45: a header that claims the impossible is refused at once, by its class") {
  const Case cases[] = {
      {"no magic", [](Image& i) { put32(i, 0, 0); }, ErrorCode::kImageFormat},
      {"an empty file", [](Image& i) { i.clear(); }, ErrorCode::kImageFormat},
      {"cut inside the header", [](Image& i) { i.resize(60); }, ErrorCode::kImageCorrupt},
      {"cut inside the version 3 fields", [](Image& i) { i.resize(90); }, ErrorCode::kImageCorrupt},
      {"version 1", [](Image& i) { put32(i, 4, 1); }, ErrorCode::kUnsupported},
      {"version 4", [](Image& i) { put32(i, 4, 4); }, ErrorCode::kUnsupported},
      {"cluster bits 8", [](Image& i) { put32(i, 20, 8); }, ErrorCode::kImageCorrupt},
      {"cluster bits 22", [](Image& i) { put32(i, 20, 22); }, ErrorCode::kImageCorrupt},
      {"cluster bits 2^31", [](Image& i) { put32(i, 20, 1u << 31); }, ErrorCode::kImageCorrupt},
      {"size 2^64-1", [](Image& i) { put64(i, 24, ~std::uint64_t{0}); }, ErrorCode::kImageCorrupt},
      {"L1 of 32 MiB in a small file", [](Image& i) { put32(i, 36, 4u << 20); }, ErrorCode::kImageCorrupt},
      {"L1 above 32 MiB", [](Image& i) { put32(i, 36, (4u << 20) + 1); }, ErrorCode::kImageCorrupt},
      {"L1 of 2^32-1 entries", [](Image& i) { put32(i, 36, ~0u); }, ErrorCode::kImageCorrupt},
      {"L1 smaller than the disk", [](Image& i) { put32(i, 36, 0); }, ErrorCode::kImageCorrupt},
      {"L1 unaligned", [](Image& i) { put64(i, 40, 4097); }, ErrorCode::kImageCorrupt},
      {"L1 at 2^63", [](Image& i) { put64(i, 40, std::uint64_t{1} << 63); }, ErrorCode::kImageCorrupt},
      {"L1 past the end", [](Image& i) { put64(i, 40, 1u << 30); }, ErrorCode::kImageCorrupt},
      {"no refcount table", [](Image& i) { put32(i, 56, 0); }, ErrorCode::kImageCorrupt},
      {"refcount table above 8 MiB", [](Image& i) { put32(i, 56, 2049); }, ErrorCode::kImageCorrupt},
      {"refcount table of 8 MiB in a small file", [](Image& i) { put32(i, 56, 2048); }, ErrorCode::kImageCorrupt},
      {"refcount table unaligned", [](Image& i) { put64(i, 48, 4096 + 512); }, ErrorCode::kImageCorrupt},
      {"refcount table at 2^64-4096", [](Image& i) { put64(i, 48, ~std::uint64_t{0} - 4095); },
       ErrorCode::kImageCorrupt},
      {"refcount order 7", [](Image& i) { put32(i, 96, 7); }, ErrorCode::kImageCorrupt},
      {"header length 100", [](Image& i) { put32(i, 100, 100); }, ErrorCode::kImageCorrupt},
      {"header length 2^32-1", [](Image& i) { put32(i, 100, ~0u); }, ErrorCode::kImageCorrupt},
      {"65537 snapshots", [](Image& i) { put32(i, 60, 65537), put64(i, 64, 4096); }, ErrorCode::kImageCorrupt},
      {"65536 snapshots in a small file", [](Image& i) { put32(i, 60, 65536), put64(i, 64, 4096); },
       ErrorCode::kImageCorrupt},
      {"a snapshot table past the end", [](Image& i) { put32(i, 60, 1), put64(i, 64, 1u << 30); },
       ErrorCode::kImageCorrupt},
      {"a snapshot with 4 GiB of extra data",
       [](Image& i) {
         put32(i, 60, 1), put64(i, 64, 4096);
         put32(i, 4096 + 36, ~0u);
       },
       ErrorCode::kImageCorrupt},
      {"backing path outside the cluster", [](Image& i) { put64(i, 8, 4097), put32(i, 16, 1); },
       ErrorCode::kImageCorrupt},
      {"backing path of 1024 bytes", [](Image& i) { put64(i, 8, 600), put32(i, 16, 1024); }, ErrorCode::kImageCorrupt},
      {"backing path over the header", [](Image& i) { put64(i, 8, 8), put32(i, 16, 4); }, ErrorCode::kImageCorrupt},
      {"an extension of 2^32-1 bytes", [](Image& i) { put32(i, 116, ~0u); }, ErrorCode::kImageCorrupt},
      {"encryption method 3", [](Image& i) { put32(i, 32, 3); }, ErrorCode::kImageCorrupt},
      {"LUKS without its header", [](Image& i) { put32(i, 32, 2); }, ErrorCode::kImageCorrupt},
      {"a compression type without its bit", [](Image& i) { i[104] = std::byte{1}; }, ErrorCode::kImageCorrupt},
      {"a compression bit without its type", [](Image& i) { put64(i, 72, 8); }, ErrorCode::kImageCorrupt},
      {"a bitmaps extension of 1 byte", [](Image& i) { put32(i, 112, 0x23852875), put32(i, 116, 1), put32(i, 128, 0); },
       ErrorCode::kImageCorrupt},
  };
  for (const Case& each : cases) {
    CAPTURE(each.name);
    Image image = sample();
    each.harm(image);
    for (const bool cut : {false, true}) {
      if (cut && image.size() > 1024) image.resize(1024);
      MemoryFile file(image);
      const auto start = std::chrono::steady_clock::now();
      for (const bool writable : {false, true}) {
        const auto opened = open_qcow2(file, {.writable = writable});
        REQUIRE_FALSE(opened.ok());
        CAPTURE(opened.error().message);
        if (!cut) CHECK(opened.error().code == each.expected);
      }
      CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(30));
      CHECK(file.bytes() == image);
    }
  }
}

TEST_CASE("I46: damaged table entries: counted by check, typed when read, and nothing is written through them") {
  const Case cases[] = {
      {"an unaligned L1 entry", [](Image& i) { put64(i, l1_of(i), l2_of(i) + 512); }, ErrorCode::kImageCorrupt},
      {"an L1 entry past the end", [](Image& i) { put64(i, l1_of(i), 1u << 30); }, ErrorCode::kImageCorrupt},
      {"an L1 entry at the L1 table", [](Image& i) { put64(i, l1_of(i), l1_of(i) | 1ull << 63); },
       ErrorCode::kImageCorrupt},
      {"an L1 entry at the refcount table", [](Image& i) { put64(i, l1_of(i), get64(i, 48) | 1ull << 63); },
       ErrorCode::kImageCorrupt},
      {"an unaligned L2 entry", [](Image& i) { put64(i, l2_of(i), l2_of(i) + 512); }, ErrorCode::kImageCorrupt},
      {"an L2 entry past the end", [](Image& i) { put64(i, l2_of(i), 1ull << 63 | 1u << 30); },
       ErrorCode::kImageCorrupt},
      {"an L2 entry at its own table", [](Image& i) { put64(i, l2_of(i), l2_of(i) | 1ull << 63); },
       ErrorCode::kImageCorrupt},
      {"an L2 entry at the L1 table", [](Image& i) { put64(i, l2_of(i), l1_of(i) | 1ull << 63); },
       ErrorCode::kImageCorrupt},
      {"a compressed entry past the end", [](Image& i) { put64(i, l2_of(i), 1ull << 62 | 1u << 30); },
       ErrorCode::kImageCorrupt},
      {"a compressed entry over the header", [](Image& i) { put64(i, l2_of(i), 1ull << 62 | 100); },
       ErrorCode::kImageCorrupt},
  };
  for (const Case& each : cases) {
    CAPTURE(each.name);
    Image image = sample();
    each.harm(image);
    MemoryFile file(image);
    {
      auto block = open_readable(file);
      std::vector<std::byte> out(4096);
      const Status read = block->read(0, out);
      REQUIRE_FALSE(read.ok());
      CHECK(read.error().code == each.expected);
      CHECK(read.error().offset.has_value());
      CHECK_FALSE(block->status(0, 4096).ok());
      CHECK(check(*block).corruptions > 0);
    }
    CHECK(file.bytes() == image);
    auto block = open_writable(file);
    const Status written = block->write(0, pattern(4096, 9));
    REQUIRE_FALSE(written.ok());
    CHECK(written.error().code == ErrorCode::kImageCorrupt);
    CHECK_FALSE(block->flush().ok());
    // The mark is all that changed, and it keeps the next writer out.
    put64(image, 72, 2);
    CHECK(file.bytes() == image);
    const auto next = open_qcow2(file, {.writable = true});
    REQUIRE_FALSE(next.ok());
    CHECK(next.error().code == ErrorCode::kImageCorrupt);
    // No repair loses what can be read.
    auto repaired = must(open_qcow2(file, {.writable = true, .for_repair = true}));
    std::vector<std::byte> rest(4096);
    const bool readable = repaired->read(4096, rest).ok();
    check(*repaired, Repair::kAll);
    std::vector<std::byte> then(4096);
    CHECK(repaired->read(4096, then).ok() == readable);
    CHECK(rest == then);
  }
}

TEST_CASE("I47: wrong refcounts are found, and a doubly used cluster is not overwritten") {
  Image image = sample();
  const std::uint64_t table = get64(image, 48);
  const std::uint64_t block_at = get64(image, table);
  const std::uint64_t first_data = get64(image, l2_of(image)) & 0x00fffffffffffe00;
  const auto count_at = [&](std::uint64_t offset) { return block_at + offset / 4096 * 2; };
  SUBCASE("two entries, both said to be alone") {
    put64(image, l2_of(image) + 8, get64(image, l2_of(image)));
    store_be16(image.data() + count_at(first_data), 2);
  }
  SUBCASE("no count at all") { store_be16(image.data() + count_at(first_data), 0); }
  SUBCASE("metadata without a count would be handed out") { store_be16(image.data() + count_at(l2_of(image)), 0); }
  MemoryFile file(image);
  CHECK(check(*open_readable(file)).corruptions > 0);
  auto block = open_writable(file);
  const Status written = block->write(0, pattern(4096, 9));
  REQUIRE_FALSE(written.ok());
  CHECK(written.error().code == ErrorCode::kImageCorrupt);
  put64(image, 72, 2);
  CHECK(file.bytes() == image);
}

TEST_CASE("I47: a count that its width cannot hold is found and not wrapped by a repair") {
  PlanOptions options = disk(1 << 16, 512);
  options.refcount_bits = 1;
  MemoryFile file(planned(options));
  {
    auto block = open_writable(file);
    must(block->write(0, pattern(1024, 1)));
    must(block->flush());
  }
  Image& image = file.bytes();
  put64(image, l2_of(image) + 8, get64(image, l2_of(image)));
  auto block = must(open_qcow2(file, {.writable = true, .for_repair = true}));
  CHECK(check(*block, Repair::kAll).corruptions > 0);
  CHECK(check(*block).corruptions > 0);
}

TEST_CASE("I48: a compressed cluster inflates to one cluster or is damage") {
  const Scratch scratch;
  must_run("qemu-img create -q -f raw " + scratch.path("raw") + " 64k");
  must_run("qemu-io -f raw -c 'write -P 7 0 64k' " + scratch.path("raw"));
  must_run("qemu-img convert -c -O qcow2 -o cluster_size=4096 " + scratch.path("raw") + " " + scratch.path("c"));
  const Image good = scratch.get("c");
  std::vector<std::byte> out(4096);
  {
    MemoryFile file(good);
    auto block = open_readable(file);
    CHECK(read_all(*block) == scratch.get("raw"));
    CHECK(must(block->status(0, 1 << 16)).compressed);
    CHECK(must(block->status(0, 1 << 16)).length == 1 << 16);
    std::vector<std::byte> part(100);
    must(block->read(4096 * 3 + 50, part));
    CHECK(part[0] == std::byte{7});
    // Written over: a plain cluster, and the rest as before.
    MemoryFile copy(good);
    auto writer = open_writable(copy);
    must(writer->write(4096, out));
    must(writer->flush());
    CHECK(check(*writer).corruptions == 0);
    CHECK(check(*writer).leaks == 0);
    must_run("qemu-img check -q " + scratch.put("d", copy.bytes()));
  }
  const std::uint64_t stream = get64(good, l2_of(good)) & ((1ull << 58) - 1);
  const Case cases[] = {
      {"garbage", [&](Image& i) { i[stream] = std::byte{0xff}; }, ErrorCode::kImageCorrupt},
      {"an empty stream", [&](Image& i) { i[stream] = std::byte{3}, i[stream + 1] = std::byte{0}; },
       ErrorCode::kImageCorrupt},
      {"clusters half the size of the stream's", [&](Image&) {}, ErrorCode::kImageCorrupt},
  };
  for (std::size_t i = 0; i < 2; ++i) {
    CAPTURE(cases[i].name);
    Image image = good;
    cases[i].harm(image);
    MemoryFile file(image);
    auto block = open_readable(file);
    const Status read = block->read(0, out);
    REQUIRE_FALSE(read.ok());
    CHECK(read.error().code == cases[i].expected);
  }
}

TEST_CASE("I51: unreadable features are unsupported by name, and told by info") {
  const std::pair<std::uint64_t, const char*> features[] = {{4, "external data file"}, {1ull << 40, "feature bit 40"}};
  for (const auto& [bit, name] : features) {
    Image image = sample();
    put64(image, 72, bit);
    MemoryFile file(image);
    const auto opened = open_qcow2(file, {});
    REQUIRE_FALSE(opened.ok());
    CHECK(opened.error().code == ErrorCode::kUnsupported);
    CHECK(opened.error().message.find(name) != std::string::npos);
    auto info = must(open_qcow2(file, {.info_only = true}));
    bool told = false;
    for (const SpecificValue& each : info->info().specific) told = told || each.name == "unsupported-feature";
    CHECK(told);
    std::byte one{};
    CHECK(info->read(0, {&one, 1}).error().code == ErrorCode::kUnsupported);
  }
  {
    Image image = sample();
    put64(image, 72, 8);
    image[104] = std::byte{2};
    MemoryFile file(image);
    const auto opened = open_qcow2(file, {});
    REQUIRE_FALSE(opened.ok());
    CHECK(opened.error().code == ErrorCode::kUnsupported);
    CHECK(opened.error().message.find("compression type 2") != std::string::npos);
  }
  const Scratch scratch;
  must_run("cd " + scratch.path("") + " && qemu-img create -q -f qcow2 -o data_file=x.raw f 1M");
  MemoryFile external(scratch.get("f"));
  CHECK(open_qcow2(external, {}).error().code == ErrorCode::kUnsupported);
  CHECK(must(open_qcow2(external, {.info_only = true}))->size() == 1 << 20);
  for (const std::uint32_t method : {1u, 2u}) {
    Image image = sample();
    put32(image, 32, method);
    put32(image, 112, 0x0537be77);  // where the feature names were: a pointer to a LUKS header
    put32(image, 116, 16);
    put32(image, 136, 0);
    MemoryFile file(image);
    CHECK(open_qcow2(file, {}).error().code == ErrorCode::kUnsupported);
    CHECK(must(open_qcow2(file, {.info_only = true}))->info().encrypted);
  }
}

TEST_CASE("I32: a corrupt mark keeps writers out, a dirty image is repaired before it is written") {
  Image image = sample();
  put64(image, 72, 2);
  {
    MemoryFile file(image);
    CHECK(open_qcow2(file, {.writable = true}).error().code == ErrorCode::kImageCorrupt);
    CHECK(open_readable(file)->info().corrupt);
    auto block = must(open_qcow2(file, {.writable = true, .for_repair = true}));
    CHECK(block->write(0, pattern(4096, 1)).error().code == ErrorCode::kImageCorrupt);
    CHECK(check(*block, Repair::kAll).corruptions == 0);
    CHECK_FALSE(block->info().corrupt);
    must(open_writable(file)->write(0, pattern(4096, 1)));
  }
  const Scratch scratch;
  must_run("qemu-img create -q -f qcow2 -o cluster_size=512,lazy_refcounts=on " + scratch.path("lazy") + " 64k");
  run("qemu-io -c 'write -P 1 0 4k' -c abort " + scratch.path("lazy"));
  MemoryFile file(scratch.get("lazy"));
  const Image before = file.bytes();
  {
    auto reader = open_readable(file);
    CHECK(reader->info().dirty);
    CHECK(read_all(*reader)[0] == std::byte{1});
    CHECK(check(*reader).corruptions > 0);
  }
  CHECK(file.bytes() == before);
  auto writer = open_writable(file);
  NoProgress progress;
  const CancelToken cancel;
  must(writer->prepare_to_write(Writing::kBytes, progress, cancel));
  CHECK_FALSE(writer->info().dirty);
  CHECK(check(*writer).corruptions == 0);
  CHECK(read_all(*writer)[0] == std::byte{1});
}

TEST_CASE("snapshots keep their bytes while the disk is written, and bitmaps keep writers out") {
  const Scratch scratch;
  const std::string path = scratch.path("a");
  must_run("qemu-img create -q -f qcow2 -o cluster_size=512 " + path + " 256k");
  must_run("qemu-io -c 'write -P 1 0 64k' -c 'write -P 2 100k 3k' " + path);
  must_run("qemu-img snapshot -c first " + path);
  must_run("qemu-img convert -O raw -l first " + path + " " + scratch.path("before"));
  MemoryFile file(scratch.get("a"));
  {
    auto block = open_writable(file);
    CHECK(block->has_internal_snapshots());
    REQUIRE(block->info().snapshots.size() == 1);
    CHECK(block->info().snapshots[0].name == "first");
    must(block->write(512 * 3, pattern(512 * 90, 5)));
    must(block->write_zeros(512 * 180, 512 * 100));
    must(block->flush());
    const CheckReport report = check(*block);
    CHECK(report.corruptions == 0);
    CHECK(report.leaks == 0);
  }
  scratch.put("a", file.bytes());
  must_run("qemu-img check -q " + path);
  must_run("qemu-img convert -O raw -l first " + path + " " + scratch.path("after"));
  CHECK(scratch.get("before") == scratch.get("after"));

  must_run("qemu-img create -q -f qcow2 " + path + " 1M");
  must_run("qemu-img bitmap --add " + path + " map");
  MemoryFile mapped(scratch.get("a"));
  CHECK(read_all(*open_readable(mapped)).size() == 1 << 20);
  const auto refused = open_qcow2(mapped, {.writable = true});
  REQUIRE_FALSE(refused.ok());
  CHECK(refused.error().code == ErrorCode::kUnsupported);
  CHECK(refused.error().message.find("bitmaps") != std::string::npos);
}

TEST_CASE("I22: unknown extensions and unknown header fields survive, stale bytes of a longer path do not") {
  PlanOptions options = disk(1 << 20);
  options.backing_path = std::string(700, 'l');
  options.backing_format = "qcow2";
  Image image = planned(options);
  // The feature names become an extension that nobody knows.
  put32(image, 112 + 16, 0x12345678);
  put32(image, 112 + 16 + 4, 48);
  put32(image, 112 + 16 + 8 + 48, 0);
  MemoryFile file(image);
  auto block = open_writable(file);
  CHECK(block->can_set_backing(BackingReference{std::string(1024, 'x'), "raw"}).error().code ==
        ErrorCode::kInvalidArgument);
  CHECK(file.bytes() == image);
  must(block->set_backing(BackingReference{"short", "raw"}));
  const Image& now = file.bytes();
  CHECK(std::search_n(now.begin(), now.begin() + 65536, 8, std::byte{'l'}) == now.begin() + 65536);
  CHECK(std::memcmp(now.data() + 112 + 16, image.data() + 112 + 16, 8 + 48) == 0);
  must(block->set_backing(std::nullopt));
  CHECK(get64(file.bytes(), 8) == 0);
  CHECK(std::search_n(now.begin(), now.begin() + 65536, 3, std::byte{'s'}) == now.begin() + 65536);
  const Scratch scratch;
  CHECK(must_run("qemu-img info " + scratch.put("a", file.bytes())).find("backing") == std::string::npos);
}

TEST_CASE("I52: the status of an empty 100 GiB overlay is one answer") {
  PlanOptions options = disk(std::uint64_t{100} << 30);
  MemoryFile file(planned(options));
  auto block = open_readable(file);
  const BlockStatus status = must(block->status(0, block->size()));
  CHECK(status.mapping == Mapping::kUnallocated);
  CHECK(status.length == block->size());
}

TEST_CASE("status joins what is contiguous across L2 tables") {
  MemoryFile file(planned(disk(512 * 400, 512)));
  auto block = open_writable(file);
  must(block->write_zeros(512 * 10, 512 * 300));
  must(block->flush());
  CHECK(must(block->status(0, block->size())).length == 512 * 10);
  const BlockStatus zeros = must(block->status(512 * 10, block->size() - 512 * 10));
  CHECK(zeros.mapping == Mapping::kZero);
  CHECK(zeros.length == 512 * 300);
}

}  // namespace sluicebox::image::qcow2
