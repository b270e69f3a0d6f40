#include <random>

#include "test/image/qcow2_fixture.h"

namespace sluicebox::image::qcow2 {
namespace {

struct Shape {
  std::uint64_t cluster_size;
  unsigned version;
  unsigned refcount_bits;
  bool extended_l2 = false;
};

std::vector<Shape> shapes() {
  std::vector<Shape> all;
  for (const unsigned bits : {1u, 2u, 4u, 8u, 16u, 32u, 64u}) all.push_back({512, 3, bits});
  for (const std::uint64_t cluster : {1024u, 4096u, 65536u, 2u << 20}) {
    all.push_back({cluster, 3, 16});
    all.push_back({cluster, 2, 16});
  }
  all.push_back({512, 2, 16});
  for (const std::uint64_t cluster : {16384u, 65536u, 2u << 20}) all.push_back({cluster, 3, 16, true});
  all.push_back({16384, 3, 1, true});
  return all;
}

PlanOptions options_of(const Shape& shape, std::uint64_t size) {
  PlanOptions options = disk(size, shape.cluster_size);
  options.version = shape.version;
  options.refcount_bits = shape.refcount_bits;
  options.extended_l2 = shape.extended_l2;
  return options;
}

}  // namespace

TEST_CASE("what was written is read back, by us and by qemu-img, in every shape of image") {
  for (const Shape& shape : shapes()) {
    CAPTURE(shape.cluster_size);
    CAPTURE(shape.version);
    CAPTURE(shape.refcount_bits);
    CAPTURE(shape.extended_l2);
    const std::uint64_t unit = shape.extended_l2 ? shape.cluster_size / 32 : shape.cluster_size;
    const std::uint64_t units = unit > 65536 ? 8 : 300;
    const std::uint64_t size = unit * units + 512;
    MemoryFile file(planned(options_of(shape, size)));
    std::vector<std::byte> expected(size);
    std::mt19937 random(7);
    {
      auto block = open_writable(file);
      for (int round = 0; round < 40; ++round) {
        const std::uint64_t first = random() % (units + 1);
        const std::uint64_t count = 1 + random() % 40;
        const std::uint64_t offset = std::min(first * unit, (size - 1) / unit * unit);
        const std::uint64_t length = std::min(count * unit, size - offset);
        const auto at = expected.begin() + static_cast<std::ptrdiff_t>(offset);
        if (random() % 3 == 0) {
          must(block->write_zeros(offset, length));
          std::fill(at, at + static_cast<std::ptrdiff_t>(length), std::byte{0});
        } else {
          const auto data = pattern(length, round);
          must(block->write(offset, data));
          std::copy(data.begin(), data.end(), at);
        }
        if (random() % 5 == 0) must(block->flush());
        if (round % 8 == 0) CHECK(read_all(*block) == expected);
      }
      must(block->flush());
      CHECK(read_all(*block) == expected);
    }
    auto block = open_readable(file);
    CHECK(read_all(*block) == expected);
    const Scratch scratch;
    const std::string image = scratch.put("a.qcow2", file.bytes());
    must_run("qemu-img check -q " + image);
    must_run("qemu-img convert -O raw " + image + " " + scratch.path("a.raw"));
    CHECK(scratch.get("a.raw") == expected);
  }
}

}  // namespace sluicebox::image::qcow2
