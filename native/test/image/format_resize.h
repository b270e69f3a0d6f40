// format_resize.h: what the tests of resizing have for every format with a planner: images in memory made larger and
// smaller, crashes played back, writes that fail, and what qemu-img says of them.
// Knows: Block, prepare_growth. Does not know: formats. Threads: one test.
#pragma once

#include "image/chain.h"
#include "image/ops/growth.h"
#include "test/image/format_fixture.h"
#include "test/image/qemu.h"
#include "test/image/temp_dir.h"

namespace sluicebox::image::testing {

struct ImageResize {
  std::string what;
  Image start;
  std::uint64_t size = 0;
  Image parent = {};   // empty: none
  bool leaks = false;  // space between blocks stays behind
};

// An image in memory, open together with its parent.
class OpenPair {
 public:
  OpenPair(File& file, const Image& parent, const OpenImage& open, bool writable)
      : parent_file_(parent), block_(must(open(file, writable))) {
    if (!parent.empty()) parent_ = must(open(parent_file_, false));
  }

  Block& block() { return *block_; }
  std::vector<Block*> below() const { return parent_ ? std::vector{parent_.get()} : std::vector<Block*>(); }

  // As the operation does it.
  Status resize(std::uint64_t size) {
    NoProgress silent;
    const CancelToken never;
    TRY(block_->can_resize(size));
    TRY(block_->prepare_to_write(Writing::kBytes, silent, never));
    if (size > block_->size()) TRY(prepare_growth(*block_, below(), size, silent, never));
    return block_->resize(size);
  }

  // What a guest sees: all of a small disk; of a large one the beginning and the end.
  Image seen() const {
    constexpr std::uint64_t kSmall = 32u << 20, kPart = 2u << 20;
    std::vector<Block*> layers = {block_.get()};
    for (Block* each : below()) layers.push_back(each);
    const std::uint64_t size = block_->size();
    ChainView view(layers, size);
    Image bytes(size <= kSmall ? size : 2 * kPart);
    if (size <= kSmall) {
      must(view.read(0, bytes));
    } else {
      must(view.read(0, MutableBytes(bytes).first(kPart)));
      must(view.read(size - kPart, MutableBytes(bytes).last(kPart)));
    }
    return bytes;
  }

 private:
  MemoryFile parent_file_;
  std::unique_ptr<Block> block_;
  std::unique_ptr<Block> parent_;
};

// The images are of megabytes, and compared often.
inline bool same(const Image& a, const Image& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size()) == 0);
}

struct Seen {
  std::uint64_t size = 0;
  Image bytes;
  bool operator==(const Seen& other) const { return size == other.size && same(bytes, other.bytes); }
};
inline Seen seen(File& file, const ImageResize& each, const OpenImage& open) {
  OpenPair pair(file, each.parent, open, false);
  return {.size = pair.block().size(), .bytes = pair.seen()};
}

inline void require_clean(File& file, const OpenImage& open, bool may_leak) {
  const CheckReport report = check(*must(open(file, false)));
  INFO((report.problems.empty() ? "" : report.problems.front().message));
  REQUIRE(report.corruptions == 0);
  if (!may_leak) REQUIRE(report.leaks == 0);
}

// The image as it is afterwards. It reads as it did, or as its beginning, and zeros behind.
inline Image resized(const ImageResize& each, const OpenImage& open) {
  CAPTURE(each.what);
  MemoryFile file(each.start);
  const Seen before = seen(file, each, open);
  {
    OpenPair pair(file, each.parent, open, true);
    must(pair.resize(each.size));
    REQUIRE(pair.block().size() == each.size);
    REQUIRE(same(pair.seen(), seen(file, each, open).bytes));
  }
  const Seen after = seen(file, each, open);
  REQUIRE(after.size == each.size);
  if (before.size == before.bytes.size() && after.size == after.bytes.size()) {
    Image wanted = before.bytes;
    wanted.resize(each.size);
    REQUIRE(same(after.bytes, wanted));
  }
  require_clean(file, open, each.leaks);
  return file.bytes();
}

// What qemu-img says of it, and reads of it where it is not too large.
inline void require_qemu_agrees(const std::string& format, const ImageResize& each, const Image& after,
                                const OpenImage& open) {
  constexpr std::uint64_t kMostRead = 1u << 30;
  const TempDir directory;
  const std::string path = directory.file("image");
  put(path, after);
  const RunResult info = qemu_img({"info", "--output=json", "-f", format, path});
  INFO(info.output);
  REQUIRE(info.output.find("\"virtual-size\": " + std::to_string(each.size)) != std::string::npos);
  if (each.size > kMostRead) return;
  const std::string bytes = guest_bytes_by_qemu(path, format, directory.file("raw"));
  MemoryFile file(after);
  const Image wanted = read_all(*must(open(file, false)));
  REQUIRE(bytes.size() == wanted.size());
  REQUIRE(std::memcmp(bytes.data(), wanted.data(), wanted.size()) == 0);
}

// Whatever a crash left: it can be written, comes to the wanted size when asked again, and shows nothing of before when
// it grows past what it was.
inline void require_usable(const Image& crashed, const ImageResize& each, const OpenImage& open, const Seen& after) {
  MemoryFile file(crashed);
  const std::uint64_t most = std::max(after.size, seen(file, each, open).size) + (3u << 19);
  {
    OpenPair pair(file, each.parent, open, true);
    must(pair.resize(each.size));
  }
  REQUIRE((seen(file, each, open) == after));
  require_clean(file, open, true);
  const std::size_t unit = must(open(file, false))->allocation_unit();
  {
    OpenPair pair(file, each.parent, open, true);
    must(pair.resize(most / unit * unit));
    must(pair.block().write(each.size - unit, pattern(unit, 98)));
    must(pair.block().flush());
  }
  require_clean(file, open, true);
  const Seen grown = seen(file, each, open);
  if (grown.size != grown.bytes.size()) return;
  const Bytes gained = Bytes(grown.bytes).subspan(each.size);
  REQUIRE(all_zero(gained));
  REQUIRE(std::ranges::equal(Bytes(grown.bytes).subspan(each.size - unit, unit), pattern(unit, 98)));
}

// Crashes behind each write and sync of it: the disk is of the old size or of the new one, and reads so.
inline void survive_resize(const ImageResize& each, const OpenImage& open) {
  CAPTURE(each.what);
  MemoryFile file(each.start);
  const Seen before = seen(file, each, open);
  file.start_journal();
  {
    OpenPair pair(file, each.parent, open, true);
    must(pair.resize(each.size));
  }
  const Seen after = seen(file, each, open);
  // The large ones take their time.
  const bool large = each.start.size() >= 2u << 20;
  const std::size_t step = is_thorough() || each.start.size() < 9u << 20 ? 1 : 2;
  for (std::size_t events = 0; events <= file.journal().size(); events += step) {
    std::vector<std::uint64_t> seeds = crash_seeds(events);
    // Each in its turn, not in step with writes and syncs that alternate.
    const std::uint64_t in_turn = seeds[(events + events / 3) % std::min<std::size_t>(seeds.size(), 6)];
    if (!is_thorough()) seeds = {in_turn};
    if (is_thorough() && large) seeds.resize(6);
    for (const std::uint64_t seed : seeds) {
      CAPTURE(events);
      CAPTURE(seed);
      const Image crashed = file.after_crash(events, seed);
      MemoryFile disk(crashed);
      require_clean(disk, open, true);
      const Seen now = seen(disk, each, open);
      REQUIRE((now == before || now == after));
      REQUIRE(same(disk.bytes(), crashed));
      const bool used = is_thorough() ? !large || seed == in_turn : events % 4 == 0;
      if (used) require_usable(crashed, each, open, after);
    }
  }
}

// Each write, then each sync in turn fails, and then the disk is full at each of many lengths: a typed error, and the
// disk as before or after.
inline void fail_resize(const ImageResize& each, const OpenImage& open) {
  CAPTURE(each.what);
  MemoryFile untouched(each.start);
  const Seen before = seen(untouched, each, open);
  MemoryFile done(each.start);
  {
    OpenPair pair(done, each.parent, open, true);
    must(pair.resize(each.size));
  }
  const Seen after = seen(done, each, open);
  const std::uint64_t step = is_thorough() || each.start.size() < 2u << 20 ? 1 : 3;  // the large ones take their time
  enum class Fails { kWrites, kSyncs, kGrows };
  for (const Fails fails : {Fails::kWrites, Fails::kSyncs, Fails::kGrows}) {
    bool failed = true;
    for (std::uint64_t nth = 1; failed; nth += step) {
      REQUIRE(nth < 1000);
      CAPTURE(static_cast<int>(fails));
      CAPTURE(nth);
      MemoryFile file(each.start);
      if (fails == Fails::kWrites) file.fail_write(nth, nth % 2 == 0 ? ENOSPC : EIO);
      if (fails == Fails::kSyncs) file.fail_sync(nth);
      if (fails == Fails::kGrows) {
        file.limit_size(each.start.size() + (nth == 1 ? 0 : 200ull << std::min<std::uint64_t>(2 * nth, 40)));
      }
      {
        OpenPair pair(file, each.parent, open, true);
        const Status outcome = pair.resize(each.size);
        failed = !outcome.ok();
        if (failed) REQUIRE((outcome.error().code == ErrorCode::kIo || outcome.error().code == ErrorCode::kNoSpace));
        if (fails != Fails::kGrows) file.heal();
        if (failed && nth % 2 == 0) pair.block().abandon();
      }
      require_clean(file, open, true);
      const Seen now = seen(file, each, open);
      REQUIRE((now == before || now == after));
      if (!failed) REQUIRE((now == after));
    }
  }
}

}  // namespace sluicebox::image::testing
