// What is to be written is the same, and in the disk's order, however many threads find it out.
#include "image/ops/convert_ahead.h"

#include "test/image/qcow2_edit.h"

namespace sluicebox::image::qcow2 {
namespace {

constexpr std::uint64_t kConvertUnit = 4096;
constexpr std::uint64_t kConvertUnits = 2000;
constexpr std::uint64_t kConvertSize = kConvertUnits * kConvertUnit - 512;

std::uint64_t unit_bytes(std::uint64_t unit) { return std::min(kConvertUnit, kConvertSize - unit * kConvertUnit); }

// Random, zeros and text by turns: what is stored plain, left out, and packed.
std::vector<std::byte> unit_of(std::uint64_t unit, std::uint64_t seed) {
  if (unit % 5 == 1) return std::vector<std::byte>(unit_bytes(unit));
  if (unit % 5 == 2) return pattern(unit_bytes(unit), unit + seed);
  return std::vector<std::byte>(unit_bytes(unit), static_cast<std::byte>(1 + (unit + seed) % 200));
}

Image source_image(std::uint64_t seed) {
  MemoryFile file(planned(disk(kConvertSize, kConvertUnit)));
  auto block = open_writable(file);
  for (std::uint64_t unit = 0; unit < kConvertUnits; ++unit) {
    // In the second one of these images every third unit is another.
    must(block->write(unit * kConvertUnit, unit_of(unit, unit % 3 == 0 ? seed : 0)));
  }
  must(block->flush());
  return file.bytes();
}

// Notes what it is given, and checks that it comes in order.
class NotingTarget final : public ConvertTarget {
 public:
  explicit NotingTarget(const Block* packs) : packs_(packs) {}
  std::uint64_t unit() const override { return kConvertUnit; }
  Result<std::unique_ptr<UnitPacker>> make_packer() const override {
    if (packs_ == nullptr) return std::unique_ptr<UnitPacker>();
    return packs_->make_packer();
  }
  Status write(std::uint64_t offset, Bytes bytes) override { return note('b', offset, bytes); }
  Status write_packed(std::uint64_t offset, Bytes packed) override { return note('p', offset, packed); }
  Status write_zeros(std::uint64_t offset, std::uint64_t length) override {
    const std::vector<std::byte> zeros(length);
    return note('z', offset, zeros);
  }
  Status finish() override { return {}; }

  std::vector<std::byte> noted;

 private:
  Status note(char kind, std::uint64_t offset, Bytes bytes) {
    REQUIRE((noted.empty() || offset > last_));
    last_ = offset;
    std::array<std::byte, 9> head;
    head[0] = static_cast<std::byte>(kind);
    store_be64(head.data() + 1, offset);
    noted.insert(noted.end(), head.begin(), head.end());
    noted.insert(noted.end(), bytes.begin(), bytes.end());
    return {};
  }
  const Block* packs_;
  std::uint64_t last_ = 0;
};

// Feeds windows of some ranges with gaps between them, and writes what comes back.
std::vector<std::byte> converted(const ConvertLayers& layers, NotingTarget& target, unsigned threads) {
  const ConvertShape shape{.size = kConvertSize, .unit = kConvertUnit, .grain = kConvertUnit, .threads = threads};
  const auto ahead = must(ConvertAhead::make(layers, shape, target));
  std::uint64_t at = 0;
  while (true) {
    for (ConvertWindow* window = ahead->vacant(); window != nullptr && at < kConvertSize; window = ahead->vacant()) {
      for (int i = 0; i < 4 && at < kConvertSize; ++i, at += 8 * kConvertUnit) {
        const std::uint64_t length = std::min(7 * kConvertUnit, kConvertSize - at);
        window->ranges.push_back({.offset = at, .length = length});
        window->length += length;
      }
      ahead->begin();
    }
    const ConvertWindow* window = ahead->front();
    if (window == nullptr) return target.noted;
    must(window->outcome);
    for (const ConvertPart& part : window->parts) {
      const Bytes bytes = window->bytes.bytes();
      if (part.kind == PartKind::kBytes)
        must(target.write(part.range.offset, bytes.subspan(part.place, part.range.length)));
      if (part.kind == PartKind::kZeros) must(target.write_zeros(part.range.offset, part.range.length));
      if (part.kind == PartKind::kPacked) {
        must(target.write_packed(part.range.offset, Bytes(window->packed).subspan(part.place, part.packed_bytes)));
      }
    }
    ahead->release();
  }
}

}  // namespace

TEST_CASE("I35: parts come back in order and alike, packed or not, over a backing or not, whichever thread made them") {
  MemoryFile source_file(source_image(0)), backing_file(source_image(77));
  const auto source = open_readable(source_file), backing = open_readable(backing_file);
  for (const bool packs : {false, true}) {
    for (const bool compares : {false, true}) {
      CAPTURE(packs);
      CAPTURE(compares);
      ConvertLayers layers{.source = {source.get()}, .backing = {}, .own_layers = 1};
      if (compares) layers.backing = {backing.get()};
      std::vector<std::byte> first;
      for (const unsigned threads : {1u, 2u, 3u, 8u}) {
        CAPTURE(threads);
        NotingTarget target(packs ? source.get() : nullptr);
        const auto noted = converted(layers, target, threads);
        if (first.empty()) first = noted;
        REQUIRE(noted == first);
      }
      CHECK(first.size() < kConvertSize);
      CHECK(first.size() > kConvertSize / 20);
    }
  }
}

TEST_CASE("I46: an error comes with the window that it belongs to, also while others are under way") {
  Image damaged = source_image(0);
  put64(damaged, l2_of(damaged) + 200 * 8, (std::uint64_t{1} << 40) | kEntryCopied);
  MemoryFile file(damaged);
  const auto source = open_readable(file);
  const ConvertLayers layers{.source = {source.get()}, .backing = {}, .own_layers = 1};
  NotingTarget target(nullptr);
  const ConvertShape shape{.size = kConvertSize, .unit = kConvertUnit, .grain = kConvertUnit, .threads = 3};
  const auto ahead = must(ConvertAhead::make(layers, shape, target));
  for (std::uint64_t at = 0;;) {
    for (ConvertWindow* window = ahead->vacant(); window != nullptr; window = ahead->vacant()) {
      window->ranges.push_back({.offset = at, .length = kConvertUnit});
      window->length = kConvertUnit;
      at += kConvertUnit;
      ahead->begin();
    }
    const ConvertWindow* window = ahead->front();
    if (!window->outcome.ok()) {
      CHECK(window->ranges.front().offset == 200 * kConvertUnit);
      CHECK(window->outcome.error().code == ErrorCode::kImageCorrupt);
      break;  // with the other windows under way
    }
    REQUIRE(window->ranges.front().offset < 200 * kConvertUnit);
    ahead->release();
  }
}

}  // namespace sluicebox::image::qcow2
