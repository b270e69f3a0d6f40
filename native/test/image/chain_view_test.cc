#include <doctest/doctest.h>

#include <algorithm>
#include <array>

#include "image/chain.h"
#include "image/joined_disks.h"
#include "image/ops/map_walk.h"
#include "image/salvaged_disk.h"

namespace sluicebox::image {
namespace {

// A layer in memory, one byte a cell, whose status answers are as short as its contents and counted.
class CellBlock final : public Block {
 public:
  // ' ' unallocated, '0' zeros, anything else data.
  explicit CellBlock(std::string cells) : cells_(std::move(cells)) {}
  DiskFormat format() const override { return DiskFormat::kRaw; }
  std::uint64_t size() const override { return cells_.size(); }
  std::uint64_t allocation_unit() const override { return 1; }
  LayerInfo info() const override { return {}; }
  Status read(std::uint64_t offset, MutableBytes out) override {
    for (std::size_t i = 0; i < out.size(); ++i) {
      const char cell = cells_[offset + i];
      out[i] = cell == ' ' || cell == '0' ? std::byte{0} : std::byte(cell);
    }
    return {};
  }
  Result<BlockStatus> status(std::uint64_t offset, std::uint64_t length) override {
    BlockStatus status;
    const auto mapping = [&](std::uint64_t at) {
      return cells_[at] == ' ' ? Mapping::kUnallocated : cells_[at] == '0' ? Mapping::kZero : Mapping::kData;
    };
    status.mapping = mapping(offset);
    while (status.length < length && offset + status.length < cells_.size() &&
           mapping(offset + status.length) == status.mapping) {
      ++status.length;
      ++cells_looked_at;
    }
    return status;
  }
  Status write(std::uint64_t, Bytes) override { return Error(ErrorCode::kInternal, "not written"); }
  Status write_zeros(std::uint64_t, std::uint64_t) override { return Error(ErrorCode::kInternal, "not written"); }
  Status flush() override { return {}; }

  std::uint64_t cells_looked_at = 0;

 private:
  std::string cells_;
};

std::string shown(ChainView& view) {
  std::string text(view.size(), '?');
  REQUIRE(view.read(0, std::as_writable_bytes(std::span(text.data(), text.size()))).ok());
  std::ranges::replace(text, '\0', '.');
  return text;
}

}  // namespace

TEST_CASE("I23: the nearest layer that has something answers; past a shorter layer's end all is zero") {
  CellBlock top("a  0    ");
  CellBlock middle(" b c");
  CellBlock bottom("ABCDEFGHIJ");
  ChainView view({&top, &middle, &bottom}, 10);
  CHECK(shown(view) == "abC.......");
  ChainView longer({&bottom}, 12);
  CHECK(shown(longer) == "ABCDEFGHIJ..");
  ChainView shorter({&bottom}, 3);
  CHECK(shown(shorter) == "ABC");
  std::array<std::byte, 3> out = {};
  CHECK_FALSE(shorter.read(1, out).ok());
}

TEST_CASE("no layers at all are a disk of zeros") {
  ChainView view({}, 5);
  CHECK(shown(view) == ".....");
  const ChainView::Extent extent = view.status(1, 100).value();
  CHECK(extent.zero);
  CHECK(extent.length == 4);
  CHECK(extent.depth == 0);
}

TEST_CASE("status joins what is alike, names the layer that answered and never reaches past the question") {
  CellBlock top("  0  ");
  CellBlock bottom("xx yy zz");
  ChainView view({&top, &bottom}, 8);
  const auto check = [&](std::uint64_t offset, bool zero, std::uint64_t length, std::size_t depth) {
    CAPTURE(offset);
    const ChainView::Extent extent = view.status(offset, 8).value();
    CHECK(extent.zero == zero);
    CHECK(extent.length == length);
    CHECK(extent.depth == depth);
  };
  check(0, false, 2, 1);
  check(2, true, 1, 0);
  check(3, false, 2, 1);
  check(5, true, 3, 0);  // past the end of the top
  check(0, false, 2, 1);
  CHECK(view.status(0, 1).value().length == 1);
  CHECK(view.status(1, 8).value().length == 1);
  CHECK_FALSE(view.status(8, 1).ok());
}

TEST_CASE(
    "I52: a walk over 16 fragmented layers, alone, joined or salvaged, looks at each layer's metadata about once") {
  constexpr std::size_t kCells = 1 << 15;
  std::vector<CellBlock> layers;
  for (std::size_t depth = 0; depth < kMaxChainDepth; ++depth) {
    // Every layer has a cell now and then, the deepest every other one.
    std::string cells(kCells, ' ');
    const std::size_t step = depth + 1 == kMaxChainDepth ? 2 : 1000;
    for (std::size_t at = depth; at < kCells; at += step) cells[at] = 'x';
    layers.emplace_back(std::move(cells));
  }
  std::vector<Block*> blocks;
  for (CellBlock& layer : layers) blocks.push_back(&layer);
  const auto looked = [&](auto& view) {
    for (CellBlock& layer : layers) layer.cells_looked_at = 0;
    for (std::uint64_t at = 0; at < kCells;) at += view.status(at, kCells - at).value().length;
    for (const CellBlock& layer : layers) CHECK(layer.cells_looked_at <= 2 * kCells);
  };
  ChainView view(blocks, kCells);
  looked(view);
  const auto joined = JoinedDisks::join({blocks, blocks});
  REQUIRE(joined.ok());
  looked(*joined.value());
  const CancelToken never;
  SalvagedDisk salvaged(blocks, never);
  looked(salvaged);
}

TEST_CASE("I52: a map of 16 fragmented layers looks at each layer's metadata about once") {
  constexpr std::size_t kCells = 1 << 15;
  std::vector<Layer> layers;
  std::vector<CellBlock*> blocks;
  for (std::size_t depth = 0; depth < kMaxChainDepth; ++depth) {
    std::string cells(kCells, ' ');
    const std::size_t step = depth + 1 == kMaxChainDepth ? 2 : 1000;
    for (std::size_t at = depth; at < kCells; at += step) cells[at] = 'x';
    auto block = std::make_unique<CellBlock>(std::move(cells));
    blocks.push_back(block.get());
    layers.emplace_back().block = std::move(block);
  }
  MapWalk walk(layers);
  std::uint64_t extents = 0;
  for (std::uint64_t at = 0; at < kCells; ++extents) at = walk.at(at, kCells - at).value().end();
  CHECK(extents > kCells / 2);
  for (const CellBlock* layer : blocks) CHECK(layer->cells_looked_at <= 2 * kCells);
}

TEST_CASE("I23: a map names the layer that answers, the overlay where the layer below has ended") {
  std::vector<Layer> layers;
  for (const char* cells : {"a  0    ", "bbb ", "cccccccccc"}) {
    layers.emplace_back().block = std::make_unique<CellBlock>(cells);
  }
  MapWalk walk(layers);
  std::string depths, kinds;
  for (std::uint64_t at = 0; at < 8;) {
    const MapExtent extent = walk.at(at, 8 - at).value();
    depths.append(extent.length, static_cast<char>('0' + extent.depth));
    kinds.append(extent.length, !extent.present ? '-' : extent.zero ? 'z' : 'd');
    at = extent.end();
  }
  CHECK(depths == "01100000");
  CHECK(kinds == "dddz----");
}

}  // namespace sluicebox::image
