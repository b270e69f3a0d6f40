// Two chains are read and compared on two threads, and what comes of it is as if it were one.
#include "image/ops/compare_ahead.h"

#include "test/image/qcow2_edit.h"

namespace sluicebox::image::qcow2 {
namespace {

constexpr std::uint64_t kUnit = 65536;
constexpr std::uint64_t kUnits = 400;
constexpr std::uint64_t kSize = kUnits * kUnit - 512;

bool changed(std::uint64_t unit) { return unit % 7 == 3; }

Image filled(bool second) {
  MemoryFile file(planned(disk(kSize)));
  auto block = open_writable(file);
  for (std::uint64_t unit = 0; unit < kUnits; ++unit) {
    const std::uint64_t bytes = std::min(kUnit, kSize - unit * kUnit);
    must(block->write(unit * kUnit, pattern(bytes, second && changed(unit) ? unit + 1000 : unit)));
  }
  must(block->flush());
  return file.bytes();
}

// Feeds the whole disk in ranges of one, two and more units with a unit's gap between them.
class Feeder {
 public:
  void fill(CompareAhead& ahead) {
    for (ComparedWindow* window = ahead.vacant(); window != nullptr; window = ahead.vacant()) {
      while (at_ < kSize && window->length + kUnit <= ahead.window()) {
        const std::uint64_t wanted = (1 + at_ / kUnit % 5) * kUnit;
        const std::uint64_t length = std::min({wanted, ahead.window() - window->length, kSize - at_});
        window->ranges.push_back({.offset = at_, .length = length});
        window->length += length;
        at_ += length + kUnit;
      }
      if (window->length == 0) return;
      ahead.begin();
    }
  }

 private:
  std::uint64_t at_ = 0;
};

void require_right(const ComparedWindow& window) {
  std::uint64_t place = 0;
  for (const DiskRange& range : window.ranges) {
    for (std::uint64_t at = 0; at < range.length; at += kUnit) {
      const std::uint64_t unit = (range.offset + at) / kUnit;
      CAPTURE(unit);
      REQUIRE(window.differs[(place + at) / kUnit] == changed(unit));
      const std::vector<std::byte> expected = pattern(std::min(kUnit, range.length - at), unit);
      REQUIRE(std::memcmp(window.before.bytes().data() + place + at, expected.data(), expected.size()) == 0);
    }
    place += range.length;
  }
  REQUIRE(place == window.length);
}

}  // namespace

TEST_CASE("I16: windows come back in order with what differs, whichever thread read them") {
  MemoryFile old_file(filled(false)), new_file(filled(true));
  const auto old_block = open_readable(old_file), new_block = open_readable(new_file);
  for (const std::uint64_t total : {std::uint64_t{0}, kSize}) {  // without a helper and with one
    CompareAhead ahead(ChainView({old_block.get()}, kSize), ChainView({new_block.get()}, kSize), kUnit, total);
    Feeder feeder;
    std::uint64_t last = 0;
    std::uint64_t windows = 0;
    while (true) {
      feeder.fill(ahead);
      ComparedWindow* window = ahead.front();
      if (window == nullptr) break;
      must(window->outcome);
      REQUIRE((windows == 0 || window->ranges.front().offset > last));
      last = window->ranges.back().offset;
      require_right(*window);
      ahead.release();
      ++windows;
    }
    CHECK(last + 2 * kUnit > kSize - 5 * kUnit);
    CHECK(windows > 20);
  }
}

TEST_CASE("I46: an error of either chain comes with the window that it belongs to, and not before") {
  MemoryFile old_file(filled(false));
  Image damaged = filled(true);
  put64(damaged, l2_of(damaged) + 200 * 8, (std::uint64_t{1} << 40) | kEntryCopied);
  MemoryFile new_file(damaged);
  const auto old_block = open_readable(old_file), new_block = open_readable(new_file);
  CompareAhead ahead(ChainView({old_block.get()}, kSize), ChainView({new_block.get()}, kSize), kUnit, kSize);
  std::uint64_t at = 0;
  while (true) {
    for (ComparedWindow* window = ahead.vacant(); window != nullptr; window = ahead.vacant()) {
      window->ranges.push_back({.offset = at, .length = kUnit});
      window->length = kUnit;
      at += kUnit;
      ahead.begin();
    }
    ComparedWindow* window = ahead.front();
    if (!window->outcome.ok()) {
      CHECK(window->ranges.front().offset == 200 * kUnit);
      CHECK(window->outcome.error().code == ErrorCode::kImageCorrupt);
      break;  // with the other windows under way
    }
    REQUIRE(window->ranges.front().offset < 200 * kUnit);
    require_right(*window);
    ahead.release();
  }
}

}  // namespace sluicebox::image::qcow2
