// block_checks.h: what holds of every image that opens, whatever is in it, for the fuzz targets of the parsers.
// Knows: Block. Does not know: formats.
// Threads: one.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "fuzz/target.h"
#include "image/block.h"
#include "test/image/memory_file.h"

namespace sluicebox::image::fuzz {

using sluicebox::fuzz::require;

// What an image is opened for: its target knows how.
enum class OpenFor : std::uint8_t { kReading, kWriting, kRepair, kSalvage };
inline constexpr std::size_t kMaxInput = 1u << 20;
inline constexpr std::uint64_t kMaxGrown = 64u << 20;  // what an image may grow to
inline constexpr std::uint64_t kMaxReadBytes = 4u << 20;
inline constexpr int kMaxExtents = 4096;

// Status makes progress over the whole disk, and what it says, read confirms.
inline void look_at(Block& block) {
  std::vector<std::byte> buffer;
  std::uint64_t at = 0;
  std::uint64_t read = 0;
  for (int i = 0; i < kMaxExtents && at < block.size(); ++i) {
    auto status = block.status(at, block.size() - at);
    if (!status.ok()) {
      std::byte one{};
      require(!block.read(at, {&one, 1}).ok(), "a range without status is not readable");
      // On to where another entry of its table may be sound.
      const std::uint64_t step = block.info().cluster_bytes.value_or(block.allocation_unit());
      const std::uint64_t next = at - at % step;
      if (block.size() - next <= step) break;
      at = next + step;
      continue;
    }
    require(status->length > 0 && status->length <= block.size() - at, "an extent makes progress");
    if (read < kMaxReadBytes) {
      buffer.assign(std::min<std::uint64_t>(status->length, 1u << 18), std::byte{0xee});
      const auto outcome = block.read(at, buffer);
      read += buffer.size();
      if (status->mapping != Mapping::kData) require(outcome.ok() && all_zero(buffer), "holes read as zeros");
    }
    at += status->length;
  }
}

inline Result<CheckReport> check(Block& block, Repair repair) {
  NoProgress progress;
  const CancelToken cancel;
  return block.check(repair, progress, cancel);
}

// What was written is there after a flush and a reopen, and a sound image stays sound. Returns whether it came so far.
// `change`: what else is done to the image then, successful or not.
template <typename Open, typename Change>
bool write_to(const std::vector<std::byte>& bytes, std::uint64_t where, Open open, Change change) {
  MemoryFile before(bytes);
  std::uint64_t corruptions = 0;
  if (auto block = open(before, OpenFor::kReading); block.ok()) {
    auto report = check(**block, Repair::kNone);
    if (!report.ok()) return false;
    corruptions = report->corruptions;
  }
  MemoryFile file(bytes);
  file.limit_size(kMaxGrown);
  auto opened = open(file, OpenFor::kWriting);
  if (!opened.ok() || (*opened)->size() == 0) return false;
  const std::uint64_t unit = (*opened)->allocation_unit();
  const std::uint64_t offset = where % (*opened)->size() / unit * unit;
  const std::vector<std::byte> data(std::min(unit, (*opened)->size() - offset), std::byte{0x5a});
  if (!(*opened)->write(offset, data).ok()) return false;
  if (offset >= unit && !(*opened)->write_zeros(offset - unit, unit).ok()) return false;
  if (!(*opened)->flush().ok()) return false;
  change(**opened);
  opened->reset();
  auto again = open(file, OpenFor::kReading);
  require(again.ok(), "an image that was written opens again");
  std::vector<std::byte> back(data.size());
  require((*again)->read(offset, back).ok() && back == data, "what was written is read back");
  if (corruptions != 0) return false;
  auto report = check(**again, Repair::kNone);
  require(report.ok() && report->corruptions == 0, "writing to a sound image leaves it sound");
  return true;
}

// What could be read before a repair reads the same after.
inline void require_kept(Block& before, Block& after) {
  constexpr std::uint64_t kStep = 4096;
  std::vector<std::byte> one(kStep);
  std::vector<std::byte> other(kStep);
  for (std::uint64_t at = 0; at < std::min(before.size(), kMaxReadBytes); at += kStep) {
    const std::uint64_t length = std::min(kStep, before.size() - at);
    if (!before.read(at, MutableBytes(one).first(length)).ok()) continue;
    const bool read = after.read(at, MutableBytes(other).first(length)).ok();
    require(read && std::memcmp(one.data(), other.data(), length) == 0, "a repair keeps what could be read");
  }
}

// A repair leaves nothing that a second one would repair, and a guest's bytes alone.
template <typename Open>
void repair(const std::vector<std::byte>& bytes, Open open) {
  MemoryFile file(bytes);
  file.limit_size(kMaxGrown);
  auto block = open(file, OpenFor::kRepair);
  if (!block.ok()) return;
  if (!check(**block, Repair::kAll).ok()) return;
  MemoryFile untouched(bytes);
  if (auto before = open(untouched, OpenFor::kReading); before.ok()) require_kept(**before, **block);
  block->reset();
  auto again = open(file, OpenFor::kRepair);
  require(again.ok(), "a repaired image opens");
  auto second = check(**again, Repair::kAll);
  require(second.ok(), "a repaired image can be checked");
  require(second->corruptions_fixed == 0 && second->leaks_fixed == 0, "a repair is whole");
}

// What can be read of an image is salvaged, and where both read, they read the same.
template <typename Open>
void salvage(const std::vector<std::byte>& bytes, Open open) {
  constexpr std::uint64_t kStep = 4096;
  MemoryFile file(bytes);
  auto salvaged = open(file, OpenFor::kSalvage);
  auto plain = open(file, OpenFor::kReading);
  require(salvaged.ok() || !plain.ok(), "an image that opens opens to be salvaged");
  if (salvaged.ok()) look_at(**salvaged);
  if (!plain.ok()) return;
  require((*plain)->size() == (*salvaged)->size(), "a salvaged disk is as large as it was");
  std::vector<std::byte> one(kStep);
  std::vector<std::byte> other(kStep);
  for (std::uint64_t at = 0; at < std::min((*plain)->size(), kMaxReadBytes); at += kStep) {
    const std::uint64_t length = std::min(kStep, (*plain)->size() - at);
    if (!(*plain)->read(at, MutableBytes(one).first(length)).ok()) continue;
    if (!(*salvaged)->read(at, MutableBytes(other).first(length)).ok()) continue;
    require(std::memcmp(one.data(), other.data(), length) == 0, "what is salvaged is what was there");
  }
}

// All of it, of one image. Returns whether its deepest assertion was reached. `where`: it is written to, on its disk.
template <typename Open, typename Change>
bool check_anything(const std::vector<std::byte>& bytes, Open open, std::uint64_t where, Change change) {
  MemoryFile file(bytes);
  auto block = open(file, OpenFor::kReading);
  if (!block.ok()) return false;
  look_at(**block);
  (void)check(**block, Repair::kNone).ok();
  require(file.bytes() == bytes, "reading and checking write nothing");
  block->reset();
  const bool deepest = write_to(bytes, where, open, change);
  repair(bytes, open);
  return deepest;
}
template <typename Open>
bool check_anything(const std::vector<std::byte>& bytes, Open open, std::uint64_t where) {
  return check_anything(bytes, open, where, [](Block&) {});
}

// Somewhere, as the input has it.
inline std::uint64_t somewhere(Bytes input) { return input.size() > 200 ? load_be64(input.data() + 128) : 0; }

}  // namespace sluicebox::image::fuzz
