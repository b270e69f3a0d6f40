// Every single damaged byte of an image's metadata, one at a time, and every length that a file can be cut to.
#include <doctest/doctest.h>

#include "test/image/qcow2_fixture.h"

namespace sluicebox::image::qcow2 {
namespace {

// A small image with all kinds of clusters: header, tables, data, zeros.
std::vector<std::byte> sample_bytes() {
  PlanOptions options = disk(64 * 512, 512);
  options.backing_path = "base.raw";
  options.backing_format = "raw";
  MemoryFile file(planned(options));
  const auto block = open_writable(file);
  must(block->write(512, pattern(3 * 512, 1)));
  must(block->write_zeros(20 * 512, 512));
  must(block->flush());
  return file.bytes();
}

// Whatever the bytes say: results or typed errors, bounded work, and zeros where nothing is.
void read_everything(std::vector<std::byte> bytes) {
  constexpr std::uint64_t kMost = 1u << 20;  // of a disk that the damage made huge
  MemoryFile file(std::move(bytes));
  auto opened = open_qcow2(file, {});
  if (!opened.ok()) {
    CHECK_FALSE(opened.error().message.empty());
    return;
  }
  Block& block = *opened.value();
  std::vector<std::byte> unit(4096);
  for (std::uint64_t at = 0; at < std::min(block.size(), kMost); at += unit.size()) {
    const auto length = static_cast<std::size_t>(std::min<std::uint64_t>(unit.size(), block.size() - at));
    const auto status = block.status(at, length);
    if (status.ok()) CHECK(status.value().length > 0);
    const Status read = block.read(at, MutableBytes(unit).first(length));
    if (!read.ok()) CHECK_FALSE(read.error().message.empty());
  }
  NoProgress progress;
  const CancelToken cancel;
  const auto report = block.check(Repair::kNone, progress, cancel);
  if (!report.ok()) CHECK_FALSE(report.error().message.empty());
  CHECK(file.writes() == 0);
}

}  // namespace

TEST_CASE("I12: any one byte of an image's metadata may be damaged: it gives a result or a typed error, and no write") {
  const std::vector<std::byte> whole = sample_bytes();
  for (std::size_t at = 0; at < whole.size(); ++at) {
    for (const unsigned damage : {0x01U, 0x80U, 0xffU}) {
      std::vector<std::byte> bytes = whole;
      bytes[at] ^= static_cast<std::byte>(damage);
      read_everything(std::move(bytes));
    }
  }
}

TEST_CASE("I12: so it is of extended L2 entries") {
  PlanOptions options = disk(1 << 20, 16384);
  options.extended_l2 = true;
  MemoryFile file(planned(options));
  {
    const auto block = open_writable(file);
    must(block->write(3 * 512, pattern(40 * 512, 1)));
    must(block->write_zeros(100 * 512, 7 * 512));
    must(block->write_packed(8 << 14, *must(block->make_packer())->pack(std::vector<std::byte>(1 << 14))));
    must(block->flush());
  }
  const std::vector<std::byte> whole = file.bytes();
  const std::uint64_t table = load_be64(whole.data() + load_be64(whole.data() + 40)) & 0x00fffffffffffe00;
  for (std::size_t at = table; at < table + 10 * 16; ++at) {
    for (unsigned bit = 0; bit < 8; ++bit) {
      std::vector<std::byte> bytes = whole;
      bytes[at] ^= static_cast<std::byte>(1u << bit);
      read_everything(std::move(bytes));
    }
  }
}

TEST_CASE("I12: an image cut at any length gives a result or a typed error, and no write") {
  const std::vector<std::byte> whole = sample_bytes();
  for (std::size_t length = 0; length < whole.size(); ++length) {
    read_everything({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length)});
  }
}

}  // namespace sluicebox::image::qcow2
