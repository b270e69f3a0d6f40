// Stored counts that are wrong, and what an image that is written makes of them.
#include "image/formats/qcow2/metadata_map.h"
#include "test/image/qcow2_edit.h"

namespace sluicebox::image::qcow2 {
namespace {

// 4 MiB in 64 KiB clusters, 8 of them written.
Image written() {
  MemoryFile file(planned(disk(4 << 20)));
  auto block = open_writable(file);
  must(block->write(0, pattern(8 << 16, 5)));
  must(block->flush());
  return file.bytes();
}

std::pair<std::uint64_t, std::uint64_t> findings(const Image& image) {
  MemoryFile file(image);
  const CheckReport report = check(*open_readable(file));
  return {report.corruptions, report.leaks};
}

void set_dirty(Image& image) { image[at::kIncompatible + 7] |= std::byte{1}; }

}  // namespace

TEST_CASE("I47: a cluster in use whose stored count is 0 is not given to another") {
  Image image = written();
  put16(image, count_of(image, data_of(image, 2)), 0);
  MemoryFile file(image);
  auto block = open_writable(file);
  must(block->write(20 << 16, pattern(8 << 16, 9)));
  must(block->flush());
  std::vector<std::byte> back(8 << 16);
  must(open_readable(file)->read(0, back));
  CHECK(back == pattern(8 << 16, 5));
}

TEST_CASE("I47: a cluster that two entries use but is counted once is not written in place") {
  Image image = written();
  put64(image, l2_of(image) + 8 * 3, data_of(image, 2) | kEntryCopied);
  MemoryFile file(image);
  auto block = open_writable(file);
  const Status outcome = block->write(2 << 16, pattern(1 << 16, 9));
  REQUIRE_FALSE(outcome.ok());
  CHECK(outcome.error().code == ErrorCode::kImageCorrupt);
}

TEST_CASE("I47: COPIED is judged by the stored count: 2 without it is a leak alone, 2 with it is damage") {
  Image image = written();
  put16(image, count_of(image, data_of(image, 2)), 2);
  CHECK(findings(image) == std::pair<std::uint64_t, std::uint64_t>(1, 1));
  put64(image, l2_of(image) + 8 * 2, data_of(image, 2));
  CHECK(findings(image) == std::pair<std::uint64_t, std::uint64_t>(0, 1));
  // Counted once again, the entry says so again: a repair of leaks leaves nothing behind.
  MemoryFile file(image);
  auto block = must(open_qcow2(file, {.writable = true, .for_repair = true}));
  check(*block, Repair::kLeaks);
  CHECK(findings(file.bytes()) == std::pair<std::uint64_t, std::uint64_t>(0, 0));
}

TEST_CASE("I47: a count past the end of the file is no leak") {
  Image image = written();
  put16(image, count_of(image, image.size() + (20 << 16)), 1);
  CHECK(findings(image) == std::pair<std::uint64_t, std::uint64_t>(0, 0));
  const Scratch scratch;
  must_run("qemu-img check -q " + scratch.put("a", image));
}

TEST_CASE("I32: an unclean image is repaired by its first write, not by being opened") {
  Image image = written();
  set_dirty(image);
  put16(image, count_of(image, data_of(image, 2)), 0);
  MemoryFile file(image);
  auto block = open_writable(file);
  CHECK(file.bytes() == image);
  must(block->write(20 << 16, pattern(1 << 16, 9)));
  must(block->flush());
  CHECK(findings(file.bytes()) == std::pair<std::uint64_t, std::uint64_t>(0, 0));
  CHECK(get64(file.bytes(), at::kIncompatible) == 0);
}

TEST_CASE("I32: an unclean image with more damage than its counts is refused, and not a byte of it is written") {
  Image image = written();
  set_dirty(image);
  put16(image, count_of(image, data_of(image, 2)), 0);
  put16(image, count_of(image, data_of(image, 3)), 0);
  put64(image, l2_of(image) + 8 * 20, (std::uint64_t{1} << 30) | kEntryCopied);
  MemoryFile file(image);
  auto block = open_writable(file);
  const Status outcome = block->write(30 << 16, pattern(1 << 16, 9));
  REQUIRE_FALSE(outcome.ok());
  CHECK(outcome.error().code == ErrorCode::kImageCorrupt);
  CHECK(file.writes() == 0);
  CHECK(file.bytes() == image);
}

TEST_CASE("I38: what was written and never flushed leaves with its space") {
  const Image image = written();
  for (const bool full : {false, true}) {
    MemoryFile file(image);
    auto block = open_writable(file);
    if (full) file.limit_size(image.size() + (5 << 16));
    CHECK(block->write(20 << 16, pattern(8 << 16, 9)).ok() == !full);
    block->abandon();
    CHECK(file.bytes().size() == image.size());
    CHECK_FALSE(block->flush().ok());
    CHECK(findings(file.bytes()) == std::pair<std::uint64_t, std::uint64_t>(0, 0));
  }
}

TEST_CASE("I52: many snapshots whose L1 tables overlap are found without counting each cluster of each") {
  MetadataMap map(Geometry{.cluster_bits = 9, .refcount_order = 4});
  for (int i = 0; i < 65536; ++i) map.add(1 << 20, 32 << 20);
  const ClusterRuns shared = map.seal();
  CHECK(shared.first() == 1 << 20);
  CHECK(shared.contains((33 << 20) - 512));
  CHECK_FALSE(shared.contains(33 << 20));
  CHECK_FALSE(shared.contains((1 << 20) - 512));
}

TEST_CASE("I45: a bitmap that claims more than 512 MiB is damage, though its table lies in a hole of the file") {
  Image image = planned(disk(1 << 20));
  const std::uint64_t directory = (image.size() + 65535) / 65536 * 65536;
  image.resize(directory + 65536);
  std::fill(image.begin() + 112, image.begin() + 512, std::byte{0});
  put32(image, 112, extension::kBitmaps), put32(image, 116, 24);
  put32(image, 120, 1), put64(image, 128, 32), put64(image, 136, directory);
  put64(image, directory, directory + 65536);
  put32(image, directory + 8, (512u << 20) / 65536 + 1);
  image[directory + 17] = std::byte{16}, put16(image, directory + 18, 1);
  image.resize(directory + (4 << 16));
  CHECK(findings(image).first == 1);
  put32(image, directory + 8, (512u << 20) / 65536);
  CHECK(findings(image).first > 1);  // followed: now its clusters are in use, and nothing counts them
}

TEST_CASE("I22: info tells of bitmaps that mean something, and of a directory that cannot be read") {
  const Scratch scratch;
  must_run("qemu-img create -q -f qcow2 " + scratch.path("a") + " 1M");
  must_run("qemu-img bitmap --add " + scratch.path("a") + " first");
  must_run("qemu-img bitmap --add -g 512 --disable " + scratch.path("a") + " second");
  const Image sound = scratch.get("a");
  const auto specific = [](const Image& image, const std::string& name) -> std::optional<SpecificValue> {
    MemoryFile file(image);
    for (SpecificValue& value : must(open_qcow2(file, {.info_only = true}))->info().specific) {
      if (value.name == name) return std::move(value);
    }
    return std::nullopt;
  };
  const auto flags = [&](const Image& image, std::size_t index) {
    const auto bitmaps = std::get<std::vector<SpecificObject>>(specific(image, "bitmaps").value().value);
    return std::get<std::vector<std::string>>(bitmaps.at(index).at(0).second);
  };
  std::uint64_t found = 104;
  while (load_be32(sound.data() + found) != extension::kBitmaps) {
    found += 8 + (load_be32(sound.data() + found + 4) + 7) / 8 * 8;
  }
  const std::uint64_t directory = load_be64(sound.data() + found + 8 + 16);
  CHECK(flags(sound, 0) == std::vector<std::string>{"auto"});
  CHECK(flags(sound, 1).empty());
  Image image = sound;
  put32(image, directory + 12, load_be32(image.data() + directory + 12) | 1);
  CHECK(flags(image, 0) == std::vector<std::string>{"in-use", "auto"});
  for (const unsigned granularity : {64u, 255u}) {
    image = sound;
    image[directory + 17] = static_cast<std::byte>(granularity);
    CHECK_FALSE(specific(image, "bitmaps").has_value());
    CHECK(specific(image, "bitmaps-unreadable").has_value());
  }
  // A program that knows no bitmaps has written since.
  image = sound;
  put64(image, 88, 0);
  CHECK_FALSE(specific(image, "bitmaps").has_value());
  CHECK_FALSE(specific(image, "bitmaps-unreadable").has_value());
}

TEST_CASE("I22: a header extension is padded by its own length, wherever the header ends") {
  Image image = planned(disk(1 << 20));
  put32(image, at::kHeaderLength, 108);
  std::fill(image.begin() + 108, image.begin() + 400, std::byte{0});
  put32(image, 108, 0x12345678), put32(image, 112, 3);
  put32(image, 124, extension::kBackingFormat), put32(image, 128, 3);
  std::memcpy(image.data() + 132, "raw", 3);
  put64(image, at::kBackingOffset, 300), put32(image, at::kBackingLength, 4);
  std::memcpy(image.data() + 300, "base", 4);
  MemoryFile file(image);
  const auto block = must(open_qcow2(file, {.info_only = true}));
  CHECK(block->backing() == BackingReference{"base", "raw"});
}

}  // namespace sluicebox::image::qcow2
