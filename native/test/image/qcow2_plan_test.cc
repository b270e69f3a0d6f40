#include <algorithm>

#include "test/image/qcow2_fixture.h"

namespace sluicebox::image::qcow2 {
namespace {

constexpr std::uint64_t kClusterSizes[] = {512, 1024, 4096, 65536, 2u << 20};
constexpr unsigned kRefcountBits[] = {1, 2, 4, 8, 16, 32, 64};

ErrorCode refused(const PlanOptions& options, const char* key) {
  const auto size = plan_scratch_size(options);
  REQUIRE_FALSE(size.ok());
  CAPTURE(size.error().message);
  CHECK(size.error().message.find(key) != std::string::npos);
  return size.error().code;
}

template <typename Visit>
void for_every_valid_shape(Visit visit) {
  for (const std::uint64_t cluster : kClusterSizes) {
    for (const unsigned bits : kRefcountBits) {
      for (const std::uint64_t size :
           {std::uint64_t{0}, std::uint64_t{512}, std::uint64_t{12345 * 512}, std::uint64_t{1} << 30}) {
        for (const unsigned version : {2u, 3u}) {
          if (version == 2 && bits != 16) continue;
          PlanOptions options = disk(size, cluster);
          options.refcount_bits = bits;
          options.version = version;
          options.lazy_refcounts = version == 3 && size == 512;
          if (size % 1024 == 512) {
            options.backing_path = "base of 1.img";
            options.backing_format = cluster == 4096 ? "" : "raw";
          }
          CAPTURE(cluster);
          CAPTURE(bits);
          CAPTURE(size);
          CAPTURE(version);
          visit(options);
          if (version == 2 || cluster < 16384) continue;
          options.extended_l2 = true;
          CAPTURE(options.extended_l2);
          visit(options);
        }
      }
    }
  }
}

}  // namespace

TEST_CASE("I1, I2, I3, I4: the bookkeeping of every plan") {
  for_every_valid_shape([](const PlanOptions& options) {
    std::vector<std::byte> scratch(must(plan_scratch_size(options)));
    const ImagePlan plan = must(plan_qcow2(options, scratch));
    std::vector<ImagePlanWrite> writes(plan.all().begin(), plan.all().end());
    std::sort(writes.begin(), writes.end(), [](const auto& a, const auto& b) { return a.offset < b.offset; });
    std::uint64_t sum = 0;
    std::uint64_t end = 0;
    for (const ImagePlanWrite& write : writes) {
      CHECK(write.offset >= end);
      end = write.offset + write.bytes.size();
      sum += write.bytes.size();
    }
    CHECK(sum == plan.total_metadata_bytes);
    CHECK(end == plan.minimum_file_size);
    CHECK(plan.write_count <= 96);
  });
}

TEST_CASE("I5, I6: the planned bytes are the image asked for, clean, and qemu-img agrees") {
  const Scratch scratch;
  scratch.put("base of 1.img", std::vector<std::byte>(65536));
  std::size_t shapes = 0;
  for_every_valid_shape([&](const PlanOptions& options) {
    MemoryFile file(planned(options));
    auto block = open_readable(file);
    CHECK(block->size() == options.virtual_size);
    CHECK(block->allocation_unit() == options.cluster_size / (options.extended_l2 ? 32 : 1));
    CHECK(block->backing().has_value() == !options.backing_path.empty());
    if (block->backing()) CHECK(block->backing()->path == options.backing_path);
    const CheckReport report = check(*block);
    CHECK(report.corruptions == 0);
    CHECK(report.leaks == 0);
    // A process takes longer than all of the above; five divides none of what the shapes vary in.
    if (!testing::is_thorough() && shapes++ % 5 != 0) return;
    const std::string image = scratch.put("a.qcow2", file.bytes());
    must_run("qemu-img check -q " + image);
    const std::string json = must_run("qemu-img info --output=json " + image);
    CAPTURE(json);
    CHECK(json.find("\"virtual-size\": " + std::to_string(options.virtual_size)) != std::string::npos);
    CHECK(json.find("\"cluster-size\": " + std::to_string(options.cluster_size)) != std::string::npos);
    CHECK(json.find("\"refcount-bits\": " + std::to_string(options.refcount_bits)) != std::string::npos);
    CHECK((json.find("\"extended-l2\": true") != std::string::npos) == options.extended_l2);
    CHECK((json.find("\"lazy-refcounts\": true") != std::string::npos) == options.lazy_refcounts);
    CHECK((json.find("\"backing-filename\": \"" + options.backing_path + "\"") != std::string::npos) ==
          !options.backing_path.empty());
  });
}

TEST_CASE("I6: an empty image is laid out byte for byte as qemu-img does it") {
  const Scratch scratch;
  for (const bool extended_l2 : {false, true}) {
    must_run(std::string("qemu-img create -q -f qcow2 -o extended_l2=") + (extended_l2 ? "on " : "off ") +
             scratch.path("qemu") + " 1G");
    auto theirs = scratch.get("qemu");
    PlanOptions options = disk(1 << 30);
    options.extended_l2 = extended_l2;
    const auto ours = planned(options);
    REQUIRE(theirs.size() == ours.size());
    CHECK(theirs == ours);
  }
}

TEST_CASE("I7: equal options give equal bytes") {
  PlanOptions options = disk(1 << 30, 512);
  options.refcount_bits = 64;
  CHECK(planned(options) == planned(options));
}

TEST_CASE("I8: one byte of scratch too few is refused, and none behind it is touched") {
  for_every_valid_shape([](const PlanOptions& options) {
    const std::size_t need = must(plan_scratch_size(options));
    CHECK(need <= kImagePlanScratchBytes);
    std::vector<std::byte> scratch(need, std::byte{0x77});
    const auto small = plan_qcow2(options, MutableBytes(scratch).first(need - 1));
    REQUIRE_FALSE(small.ok());
    CHECK(small.error().code == ErrorCode::kInvalidArgument);
    CHECK(scratch.back() == std::byte{0x77});
  });
}

TEST_CASE("I9: what the format cannot be is refused by the name of its option") {
  for (const std::uint64_t cluster : {0u, 1u, 256u, 511u, 513u, 65535u, 4u << 20}) {
    CHECK(refused(disk(512, cluster), "clusterSize") == ErrorCode::kInvalidArgument);
  }
  for (const unsigned bits : {0u, 3u, 15u, 65u, 128u, 0xffu}) {
    PlanOptions options = disk(512);
    options.refcount_bits = bits;
    CHECK(refused(options, "refcountBits") == ErrorCode::kInvalidArgument);
  }
  PlanOptions old = disk(512);
  old.version = 2;
  old.lazy_refcounts = true;
  CHECK(refused(old, "lazyRefcounts") == ErrorCode::kInvalidArgument);
  old.lazy_refcounts = false;
  old.refcount_bits = 8;
  CHECK(refused(old, "refcountBits") == ErrorCode::kInvalidArgument);
  old.refcount_bits = 16;
  old.extended_l2 = true;
  CHECK(refused(old, "extendedL2") == ErrorCode::kInvalidArgument);
  for (const std::uint64_t cluster : {512u, 8192u}) {
    PlanOptions small = disk(512, cluster);
    small.extended_l2 = true;
    CHECK(refused(small, "extendedL2") == ErrorCode::kInvalidArgument);
  }
  old.version = 4;
  CHECK(refused(old, "version") == ErrorCode::kInvalidArgument);
}

TEST_CASE("I10: sizes at the edges are an image or a typed error, never a wrapped number") {
  for (const std::uint64_t cluster : kClusterSizes) {
    const std::uint64_t most = (std::uint64_t{4} << 20) * (cluster / 8) * cluster;
    CAPTURE(cluster);
    CHECK(plan_scratch_size(disk(most, cluster)).ok());
    for (const std::uint64_t size : {most + 512, std::uint64_t{1} << 63, ~std::uint64_t{0} - 511}) {
      CHECK(refused(disk(size, cluster), "size") == ErrorCode::kInvalidArgument);
    }
    for (const std::uint64_t size : {std::uint64_t{1}, most - 1, most + 1, ~std::uint64_t{0}}) {
      CHECK(refused(disk(size, cluster), "size") == ErrorCode::kInvalidArgument);
    }
  }
  CHECK(must(plan_scratch_size(disk((std::uint64_t{4} << 20) * 64 * 512, 512))) <= kImagePlanScratchBytes);
}

TEST_CASE("I11: a backing path of 1,023 bytes is stored, one of 1,024 refused") {
  PlanOptions options = disk(1 << 20);
  options.backing_format = "raw";
  options.backing_path = std::string(1023, 'p');
  MemoryFile file(planned(options));
  CHECK(open_readable(file)->backing()->path == options.backing_path);
  options.backing_path += 'p';
  CHECK(refused(options, "backing") == ErrorCode::kInvalidArgument);
  options.backing_path = std::string(600, 'p');
  options.cluster_size = 512;
  CHECK(refused(options, "backing") == ErrorCode::kInvalidArgument);
}

TEST_CASE("I15: metadata preallocation maps every cluster, and qemu-img finds it sound") {
  const Scratch scratch;
  NoProgress progress;
  const CancelToken cancel;
  for (const std::uint64_t cluster : {512u, 65536u}) {
    PlanOptions options = disk(3 << 20, cluster);
    MemoryFile file(planned(options));
    auto block = open_writable(file);
    must(preallocate_metadata(*block, progress, cancel));
    for (std::uint64_t at = 0; at < block->size();) {
      const BlockStatus status = must(block->status(at, block->size() - at));
      REQUIRE(status.mapping == Mapping::kData);
      at += status.length;
    }
    CHECK(all_zero(read_all(*block)));
    must_run("qemu-img check -q " + scratch.put("a", file.bytes()));
    CHECK_FALSE(preallocate_metadata(*block, progress, cancel).ok());
  }
}

TEST_CASE("I53: metadata preallocation stops when it is cancelled") {
  MemoryFile file(planned(disk(64 << 20, 512)));
  auto block = open_writable(file);
  NoProgress progress;
  CancelToken cancel;
  cancel.cancel();
  const Status outcome = preallocate_metadata(*block, progress, cancel);
  REQUIRE_FALSE(outcome.ok());
  CHECK(outcome.error().code == ErrorCode::kCancelled);
  CHECK(file.bytes().size() < 4 << 20);
}

}  // namespace sluicebox::image::qcow2
