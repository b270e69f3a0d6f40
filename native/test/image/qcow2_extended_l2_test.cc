// Extended L2 entries: what each subcluster of a cluster is, and what a change of some of them does to the others.
#include "test/image/qcow2_edit.h"

namespace sluicebox::image::qcow2 {
namespace {

constexpr std::uint64_t kCluster = 65536, kUnit = kCluster / 32;
constexpr std::uint64_t kSize = kCluster * 20;

PlanOptions extended(std::uint64_t size = kSize) {
  PlanOptions options = disk(size, kCluster);
  options.extended_l2 = true;
  return options;
}

// The halves of the n-th entry of the first L2 table.
std::uint64_t entry_at(const Image& image, std::uint64_t n) { return l2_of(image) + n * 16; }
std::uint64_t host_of(const Image& image, std::uint64_t n) { return get64(image, entry_at(image, n)) & kOffsetMask; }
std::uint64_t units_of(const Image& image, std::uint64_t n) { return get64(image, entry_at(image, n) + 8); }

std::vector<BlockStatus> statuses(Block& block, std::uint64_t end) {
  std::vector<BlockStatus> all;
  for (std::uint64_t at = 0; at < end; at += all.back().length) all.push_back(must(block.status(at, end - at)));
  return all;
}

Status create_snapshot(Block& block) {
  NoProgress progress;
  return block.create_snapshot("one", progress, CancelToken());
}

void require_clean(Block& block) {
  const CheckReport report = check(block);
  REQUIRE_MESSAGE(report.corruptions == 0, report.problems.front().message);
  REQUIRE_MESSAGE(report.leaks == 0, report.problems.front().message);
}

}  // namespace

TEST_CASE("a write takes a cluster and says which subclusters of it are the guest's") {
  MemoryFile file(planned(extended()));
  auto block = open_writable(file);
  CHECK(block->allocation_unit() == kUnit);
  CHECK(block->packed_unit() == kCluster);
  CHECK(*block->info().cluster_bytes == kCluster);
  must(block->write(kUnit * 3, pattern(kUnit * 2, 1)));
  must(block->write_zeros(kUnit * 7, kUnit));
  must(block->flush());
  CHECK(units_of(file.bytes(), 0) == ((std::uint64_t{1} << 7 << 32) | 0b11000));
  const std::uint64_t host = host_of(file.bytes(), 0);
  const auto runs = statuses(*block, kCluster);
  REQUIRE(runs.size() == 5);
  const Mapping mappings[] = {Mapping::kUnallocated, Mapping::kData, Mapping::kUnallocated, Mapping::kZero,
                              Mapping::kUnallocated};
  const std::uint64_t lengths[] = {3, 2, 2, 1, 24};
  for (std::size_t i = 0; i < runs.size(); ++i) {
    CAPTURE(i);
    CHECK(runs[i].mapping == mappings[i]);
    CHECK(runs[i].length == lengths[i] * kUnit);
  }
  CHECK(*runs[1].host_offset == host + kUnit * 3);
  require_clean(*block);
  // The rest of the cluster is there for later.
  must(block->write(kUnit * 30, pattern(kUnit * 2, 2)));
  must(block->flush());
  CHECK(host_of(file.bytes(), 0) == host);
  CHECK(block->write(kUnit * 2 + 512, pattern(kUnit, 1)).error().code == ErrorCode::kInvalidArgument);
}

TEST_CASE("runs go on over clusters that lie side by side, whatever they are made of") {
  MemoryFile file(planned(extended()));
  auto block = open_writable(file);
  must(block->write(kUnit * 10, pattern(kCluster * 3, 1)));
  must(block->flush());
  const auto runs = statuses(*block, kCluster * 4);
  REQUIRE(runs.size() == 3);
  CHECK(runs[1].mapping == Mapping::kData);
  CHECK(runs[1].length == kCluster * 3);
}

TEST_CASE("a write to a part of a snapshot's cluster leaves that, and takes along what it holds besides") {
  MemoryFile file(planned(extended()));
  auto block = open_writable(file);
  const auto before = pattern(kUnit * 20, 1);
  must(block->write(kUnit * 4, before));
  must(block->write_zeros(kUnit * 30, kUnit));
  must(create_snapshot(*block));
  const std::uint64_t shared = host_of(file.bytes(), 0);
  const auto after = pattern(kUnit, 2);
  must(block->write(kUnit * 8, after));
  must(block->flush());
  CHECK(host_of(file.bytes(), 0) != shared);
  CHECK(units_of(file.bytes(), 0) == ((std::uint64_t{1} << 30 << 32) | 0xfffff0));
  std::vector<std::byte> expected = before;
  std::copy(after.begin(), after.end(), expected.begin() + kUnit * 4);
  std::vector<std::byte> got(kUnit * 20);
  must(block->read(kUnit * 4, got));
  CHECK(got == expected);
  must(must(block->open_snapshot("one"))->read(kUnit * 4, got));
  CHECK(got == before);
  // Zeros need no cluster of their own: the snapshot's is read on.
  must(block->write_zeros(kUnit * 9, kUnit));
  must(block->flush());
  must(must(block->open_snapshot("one"))->read(kUnit * 4, got));
  CHECK(got == before);
  require_clean(*block);
}

TEST_CASE("a write to, and zeros in, a part of a compressed cluster leave the rest of it as it reads") {
  for (const bool zeros : {false, true}) {
    CAPTURE(zeros);
    MemoryFile file(planned(extended()));
    auto block = open_writable(file);
    std::vector<std::byte> expected(kCluster, std::byte{'a'});
    expected[kUnit * 5] = std::byte{'b'};
    must(block->write_packed(kCluster, *must(block->make_packer())->pack(expected)));
    must(block->flush());
    CHECK(units_of(file.bytes(), 1) == 0);
    const auto data = zeros ? std::vector<std::byte>(kUnit * 2) : pattern(kUnit * 2, 3);
    const std::uint64_t at = kUnit * 9;
    must(zeros ? block->write_zeros(kCluster + at, data.size()) : block->write(kCluster + at, data));
    must(block->flush());
    CHECK(units_of(file.bytes(), 1) == (zeros ? 0x600'fffff9ffull : 0xffffffffull));
    std::copy(data.begin(), data.end(), expected.begin() + at);
    std::vector<std::byte> got(kCluster);
    must(block->read(kCluster, got));
    CHECK(got == expected);
    CHECK(check(*block).compressed_clusters == 0);
    require_clean(*block);
    CHECK(block->write_packed(kUnit, pattern(100, 1)).error().code == ErrorCode::kInternal);
  }
}

TEST_CASE("a cluster of which no subcluster has bytes goes, and what read as zeros still does") {
  MemoryFile file(planned(extended()));
  auto block = open_writable(file);
  must(block->write(kUnit * 2, pattern(kUnit * 3, 1)));
  must(block->write_zeros(kUnit * 10, kUnit));
  must(block->flush());
  must(block->write_zeros(kUnit * 2, kUnit * 2));
  must(block->flush());
  CHECK(host_of(file.bytes(), 0) != 0);
  must(block->write_zeros(kUnit * 4, kUnit));
  must(block->flush());
  CHECK(get64(file.bytes(), entry_at(file.bytes(), 0)) == 0);
  CHECK(units_of(file.bytes(), 0) == 0x41cull << 32);
  require_clean(*block);
}

TEST_CASE("I34: a disk that ends inside a cluster shows nothing old when it grows within it") {
  for (const bool packed : {false, true}) {
    CAPTURE(packed);
    MemoryFile file(planned(extended()));
    auto block = open_writable(file);
    const std::vector<std::byte> ones(kCluster, std::byte{1});
    if (packed) {
      must(block->write_packed(0, *must(block->make_packer())->pack(ones)));
    } else {
      must(block->write(0, ones));
    }
    must(block->flush());
    must(block->resize(kUnit * 3));
    CHECK(units_of(file.bytes(), 0) == 7);
    must(block->resize(kCluster * 2));
    std::vector<std::byte> got(kCluster);
    must(block->read(0, got));
    CHECK(std::all_of(got.begin(), got.begin() + kUnit * 3, [](std::byte each) { return each == std::byte{1}; }));
    CHECK(all_zero(Bytes(got).subspan(kUnit * 3)));
    require_clean(*block);
  }
}

TEST_CASE("I15: preallocated clusters are kept for later, as qemu-img keeps them, and are not in use yet") {
  MemoryFile file(planned(extended()));
  auto block = open_writable(file);
  NoProgress progress;
  must(preallocate_metadata(*block, progress, CancelToken()));
  const std::uint64_t host = host_of(file.bytes(), 3);
  CHECK(host != 0);
  CHECK(units_of(file.bytes(), 3) == 0);
  must(block->write(kCluster * 3 + kUnit * 4, pattern(kUnit * 40, 1)));
  must(block->flush());
  CHECK(host_of(file.bytes(), 3) == host);
  CHECK(units_of(file.bytes(), 3) == 0xfffffff0);
  CHECK(units_of(file.bytes(), 4) == 0xfff);
  std::vector<std::byte> got(kUnit * 4);
  must(block->read(kCluster * 3, got));
  CHECK(all_zero(got));
  require_clean(*block);
}

TEST_CASE("I46: entries that say two things at once are damage: counted, not read, not written, and nothing else") {
  MemoryFile good(planned(extended()));
  {
    auto block = open_writable(good);
    must(block->write(0, pattern(kCluster * 4, 1)));
    must(block->write_packed(kCluster * 5, *must(block->make_packer())->pack(std::vector<std::byte>(kCluster))));
    must(block->write_zeros(kCluster * 6, kCluster));
    must(block->flush());
  }
  struct Harm {
    const char* name;
    std::uint64_t cluster;
    std::uint64_t units;
  };
  for (const auto& [name, cluster, units] :
       {Harm{"both allocated and zeros", 1, std::uint64_t{1} << 32 | 0xffffffff},
        Harm{"allocated without a cluster", 6, 0xffff0000'0000ffff}, Harm{"subclusters of a compressed cluster", 5, 1},
        Harm{"zeros in a compressed cluster", 5, 1ull << 63}}) {
    CAPTURE(name);
    Image image = good.bytes();
    put64(image, entry_at(image, cluster) + 8, units);
    MemoryFile file(image);
    {
      auto block = open_readable(file);
      const CheckReport report = check(*block);
      CHECK(report.corruptions == 1);
      CHECK(report.leaks == 0);  // what the entry uses is known
      REQUIRE(report.problems.size() == 1);
      CHECK(report.problems[0].kind == "subcluster-bits");
      CHECK(*report.problems[0].offset == entry_at(image, cluster));
      std::byte one{};
      CHECK(block->read(cluster * kCluster, {&one, 1}).error().code == ErrorCode::kImageCorrupt);
      CHECK(block->status(cluster * kCluster, 512).error().code == ErrorCode::kImageCorrupt);
      std::vector<std::byte> beside(kCluster);
      must(block->read((cluster - 1) * kCluster, beside));
      must(block->read((cluster + 1) * kCluster, beside));
    }
    CHECK(file.bytes() == image);
    auto writer = open_writable(file);
    CHECK(writer->write(cluster * kCluster, pattern(kUnit, 2)).error().code == ErrorCode::kImageCorrupt);
    CHECK(open_readable(file)->info().corrupt);
    auto repaired = must(open_qcow2(file, {.writable = true, .for_repair = true}));
    CHECK(check(*repaired, Repair::kAll).corruptions == 1);
    CHECK(get64(file.bytes(), entry_at(image, cluster) + 8) == units);
    const Scratch scratch;
    CHECK(run("qemu-img check " + scratch.put("a", image)).status == 2);
  }
}

TEST_CASE("I46: the zero flag of a standard entry is a reserved bit of an extended one, and says nothing") {
  MemoryFile file(planned(extended()));
  const auto data = pattern(kCluster, 1);
  {
    auto block = open_writable(file);
    must(block->write(0, data));
    must(block->flush());
  }
  Image image = file.bytes();
  put64(image, entry_at(image, 0), get64(image, entry_at(image, 0)) | kEntryReadsZero);
  MemoryFile marked(image);
  auto block = open_readable(marked);
  const CheckReport report = check(*block);
  REQUIRE(report.problems.size() == 1);
  CHECK(report.problems[0].kind == "reserved-bits");
  std::vector<std::byte> got(kCluster);
  must(block->read(0, got));
  CHECK(got == data);
}

TEST_CASE("clusters below 16 KiB have no subclusters, and such an image is damage") {
  Image image = planned(disk(1 << 20, 8192));
  put64(image, at::kIncompatible, 16);
  MemoryFile file(image);
  CHECK(open_qcow2(file, {}).error().code == ErrorCode::kImageCorrupt);
}

TEST_CASE("I47: a count that is wrong, and a structure that is lost, are repaired as in any image") {
  MemoryFile good(planned(extended()));
  {
    auto block = open_writable(good);
    must(block->write(kUnit * 5, pattern(kCluster * 3, 1)));
    must(block->flush());
  }
  const auto before = read_all(*open_readable(good));
  for (const bool lost : {false, true}) {
    CAPTURE(lost);
    Image image = good.bytes();
    put16(image, count_of(image, host_of(image, 1)), 0);
    put16(image, count_of(image, host_of(image, 2)), 3);
    if (lost) put64(image, get64(image, at::kRefcountTableOffset), 0);
    MemoryFile file(image);
    auto block = must(open_qcow2(file, {.writable = true, .for_repair = true}));
    CHECK(check(*block).corruptions != 0);
    CHECK(check(*block, Repair::kAll).corruptions == 0);
    CHECK(read_all(*block) == before);
    const Scratch scratch;
    must_run("qemu-img check -q " + scratch.put("a", file.bytes()));
  }
}

}  // namespace sluicebox::image::qcow2
