// format_fixture.h: what the tests of every format with a planner share: images in memory, and crashes played back.
// Knows: Block, ImagePlan. Does not know: formats. Threads: one test.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "image/block.h"
#include "image/image_plan.h"
#include "test/image/memory_file.h"

namespace sluicebox::image::testing {

template <typename T>
T must(Result<T> result) {
  if (!result.ok()) FAIL(error_code_name(result.error().code), ": ", result.error().message);
  return std::move(result).value();
}
inline void must(Status status) {
  if (!status.ok()) FAIL(error_code_name(status.error().code), ": ", status.error().message);
}

using Image = std::vector<std::byte>;

inline Image apply(const ImagePlan& plan) {
  Image bytes(plan.minimum_file_size);
  for (const ImagePlanWrite& write : plan.all()) {
    std::copy(write.bytes.begin(), write.bytes.end(), bytes.begin() + static_cast<std::ptrdiff_t>(write.offset));
  }
  return bytes;
}

// I1 to I4 and I8, of one plan.
inline void check_bookkeeping(const ImagePlan& plan, Bytes scratch) {
  std::vector<ImagePlanWrite> sorted(plan.all().begin(), plan.all().end());
  std::ranges::sort(sorted, {}, &ImagePlanWrite::offset);
  std::uint64_t sum = 0;
  std::uint64_t end = 0;
  for (const ImagePlanWrite& write : sorted) {
    CHECK(write.bytes.data() >= scratch.data());
    CHECK(write.bytes.data() + write.bytes.size() <= scratch.data() + scratch.size());
    CHECK(write.offset >= end);
    end = write.offset + write.bytes.size();
    sum += write.bytes.size();
  }
  CHECK(sum == plan.total_metadata_bytes);
  CHECK(end == plan.minimum_file_size);
  CHECK(plan.write_count <= kMaxImagePlanWrites);
}

// Bytes that differ by place and by seed.
inline Image pattern(std::size_t bytes, std::uint64_t seed) {
  Image out(bytes);
  std::uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
  for (std::byte& byte : out) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    byte = static_cast<std::byte>(state >> 56);
  }
  return out;
}

inline Image read_all(Block& block) {
  Image out(block.size());
  must(block.read(0, out));
  return out;
}

inline CheckReport check(Block& block, Repair repair = Repair::kNone) {
  NoProgress progress;
  const CancelToken cancel;
  return must(block.check(repair, progress, cancel));
}

inline void put(const std::string& path, const Image& bytes) {
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));  // byte to char
  REQUIRE(out.good());
}

using OpenImage = std::function<Result<std::unique_ptr<Block>>(File& file, bool writable)>;

// Every unit reads as it did before or as it does after.
inline void require_old_or_new(const Image& now, const Image& before, const Image& after, std::size_t unit) {
  for (std::size_t at = 0; at < now.size(); at += unit) {
    const std::size_t length = std::min(unit, now.size() - at);
    const bool old_bytes = std::memcmp(now.data() + at, before.data() + at, length) == 0;
    const bool new_bytes = old_bytes || std::memcmp(now.data() + at, after.data() + at, length) == 0;
    REQUIRE_MESSAGE(new_bytes, "the unit at ", at, " reads as neither before nor after");
  }
}

// Plays `act`, then crashes behind each write and sync of it, with none, all and random subsets of the unsynced sectors
// on disk: the image opens, checks without corruption, reads as before or after, and can be written again.
inline void survive(const Image& start, const OpenImage& open, const std::function<void(Block&)>& act) {
  MemoryFile file(start);
  Image before = read_all(*must(open(file, false)));
  file.start_journal();
  {
    auto block = must(open(file, true));
    act(*block);
    must(block->flush());
  }
  const Image after = read_all(*must(open(file, false)));
  const std::size_t unit = must(open(file, false))->allocation_unit();
  for (std::size_t events = 0; events <= file.journal().size(); ++events) {
    for (const std::uint64_t seed : crash_seeds(events)) {
      CAPTURE(events);
      CAPTURE(seed);
      MemoryFile disk(file.after_crash(events, seed));
      {
        auto block = must(open(disk, false));
        const CheckReport report = check(*block);
        REQUIRE_MESSAGE(report.corruptions == 0, report.problems.front().kind, " ", report.problems.front().message);
        require_old_or_new(read_all(*block), before, after, unit);
      }
      auto writer = must(open(disk, true));
      must(writer->write(0, pattern(unit, 99)));
      must(writer->flush());
      REQUIRE(check(*writer).corruptions == 0);
      REQUIRE(check(*writer, Repair::kAll).corruptions == 0);
      must(writer->write(writer->size() - unit, pattern(unit, 98)));
      must(writer->flush());
      Image again = read_all(*must(open(disk, false)));
      REQUIRE(std::ranges::equal(Bytes(again).first(unit), pattern(unit, 99)));
      REQUIRE(std::ranges::equal(Bytes(again).last(unit), pattern(unit, 98)));
      std::copy_n(before.begin(), unit, again.begin());
      std::copy_n(before.end() - static_cast<std::ptrdiff_t>(unit), unit,
                  again.end() - static_cast<std::ptrdiff_t>(unit));
      require_old_or_new(again, before, after, unit);
    }
  }
}

// Each write, then each sync in turn fails: a typed error, and a sound image, as before or after.
inline void fail_midway(const Image& start, const OpenImage& open, const std::function<Status(Block&)>& act) {
  MemoryFile untouched(start);
  const Image before = read_all(*must(open(untouched, false)));
  MemoryFile done(start);
  {
    auto block = must(open(done, true));
    must(act(*block));
    must(block->flush());
  }
  const Image after = read_all(*must(open(done, false)));
  for (const bool syncs : {false, true}) {
    bool failed = true;
    for (std::uint64_t nth = 1; failed; ++nth) {
      REQUIRE(nth < 1000);
      CAPTURE(syncs);
      CAPTURE(nth);
      MemoryFile file(start);
      auto block = must(open(file, true));
      if (syncs) {
        file.fail_sync(nth);
      } else {
        file.fail_write(nth, nth % 2 == 0 ? ENOSPC : EIO);
      }
      Status outcome = act(*block);
      if (outcome.ok()) outcome = block->flush();
      failed = !outcome.ok();
      if (failed) CHECK((outcome.error().code == ErrorCode::kIo || outcome.error().code == ErrorCode::kNoSpace));
      file.heal();
      if (failed && nth % 3 == 0) block->abandon();
      block.reset();
      auto again = must(open(file, false));
      REQUIRE(check(*again).corruptions == 0);
      require_old_or_new(read_all(*again), before, after, again->allocation_unit());
    }
  }
}

}  // namespace sluicebox::image::testing
