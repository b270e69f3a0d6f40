// qcow2_open_fuzz.cc: any bytes are refused, or read, checked, written and repaired without a crash, a hang or a lie.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "image/formats/qcow2/qcow2.h"
#include "test/image/memory_file.h"

namespace {

using namespace sluicebox;         // NOLINT(google-build-using-namespace): a program of its own
using namespace sluicebox::image;  // NOLINT(google-build-using-namespace)

constexpr std::size_t kMaxInput = 1u << 20;
constexpr std::uint64_t kMaxFile = 64u << 20;  // what an image may grow to
constexpr std::uint64_t kMaxRead = 4u << 20;
constexpr int kMaxExtents = 4096;

std::uint64_t runs = 0;
std::uint64_t deepest = 0;

void tell() {
  std::printf("qcow2_open_fuzz: deepest assertion ran %llu times\n", static_cast<unsigned long long>(deepest));
  std::fflush(stdout);
  if (runs > 10000 && deepest == 0) std::_Exit(1);
}

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "broken: %s\n", what);
  std::abort();
}

// Status makes progress over the whole disk, and what it says, read confirms.
void look_at(Block& block) {
  std::vector<std::byte> buffer;
  std::uint64_t at = 0;
  std::uint64_t read = 0;
  for (int i = 0; i < kMaxExtents && at < block.size(); ++i) {
    const auto status = block.status(at, block.size() - at);
    if (!status.ok()) {
      std::byte one{};
      require(!block.read(at, {&one, 1}).ok(), "a range without status is not readable");
      const std::uint64_t next = at - at % block.allocation_unit();
      if (next > block.size() - std::min(block.size(), block.allocation_unit())) break;
      at = next + block.allocation_unit();
      continue;
    }
    require(status.value().length > 0 && status.value().length <= block.size() - at, "an extent makes progress");
    if (read < kMaxRead) {
      buffer.assign(std::min<std::uint64_t>(status.value().length, 1u << 18), std::byte{0xee});
      const auto outcome = block.read(at, buffer);
      read += buffer.size();
      if (status.value().mapping != Mapping::kData) require(outcome.ok() && all_zero(buffer), "holes read as zeros");
    }
    at += status.value().length;
  }
}

Result<CheckReport> check(Block& block, Repair repair) {
  NoProgress progress;
  const CancelToken cancel;
  return block.check(repair, progress, cancel);
}

// What was written to a cluster is there after a flush and a reopen, and the rest of the disk is not worse than before.
void write_to(const std::vector<std::byte>& bytes, std::uint64_t where) {
  MemoryFile before(bytes);
  std::uint64_t corruptions = 0;
  if (auto block = qcow2::open_qcow2(before, {}); block.ok()) {
    const auto report = check(**block, Repair::kNone);
    if (!report.ok()) return;
    corruptions = report.value().corruptions;
  }
  MemoryFile file(bytes);
  file.limit_size(kMaxFile);
  auto opened = qcow2::open_qcow2(file, {.writable = true});
  if (!opened.ok() || (*opened)->size() == 0) return;
  const std::uint64_t unit = (*opened)->allocation_unit();
  const std::uint64_t offset = where % (*opened)->size() / unit * unit;
  const std::uint64_t length = std::min(unit, (*opened)->size() - offset);
  const std::vector<std::byte> data(length, std::byte{0x5a});
  if (!(*opened)->write(offset, data).ok()) return;
  if (offset >= unit && !(*opened)->write_zeros(offset - unit, unit).ok()) return;
  if (!(*opened)->flush().ok()) return;
  (*opened)->set_backing(BackingReference{"b", "raw"}).ok();
  opened->reset();

  auto again = qcow2::open_qcow2(file, {});
  require(again.ok(), "an image that was written opens again");
  std::vector<std::byte> back(length);
  require((*again)->read(offset, back).ok() && back == data, "what was written is read back");
  if (corruptions == 0) {
    const auto report = check(**again, Repair::kNone);
    require(report.ok() && report.value().corruptions == 0, "writing to a sound image leaves it sound");
    ++deepest;
  }
}

// What could be read before a repair reads the same after.
void require_kept(Block& before, Block& after) {
  const std::uint64_t unit = before.allocation_unit();
  std::vector<std::byte> one(unit);
  std::vector<std::byte> other(unit);
  for (std::uint64_t at = 0; at < std::min(before.size(), kMaxRead); at += unit) {
    const std::uint64_t length = std::min(unit, before.size() - at);
    if (!before.read(at, MutableBytes(one).first(length)).ok()) continue;
    const bool read = after.read(at, MutableBytes(other).first(length)).ok();
    require(read && std::memcmp(one.data(), other.data(), length) == 0, "a repair keeps what could be read");
  }
}

// A repair leaves nothing that a second one would repair, and a guest's bytes alone.
void repair(const std::vector<std::byte>& bytes) {
  MemoryFile file(bytes);
  file.limit_size(kMaxFile);
  auto block = qcow2::open_qcow2(file, {.writable = true, .for_repair = true});
  if (!block.ok()) return;
  const auto first = check(**block, Repair::kAll);
  if (!first.ok()) return;
  MemoryFile untouched(bytes);
  if (auto before = qcow2::open_qcow2(untouched, {}); before.ok()) require_kept(**before, **block);
  const auto second = check(**block, Repair::kAll);
  require(second.ok(), "a repaired image can be checked");
  require(second.value().corruptions_fixed == 0 && second.value().leaks_fixed == 0, "a repair is whole");
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  std::atexit(tell);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  ++runs;
  if (size > kMaxInput) return 0;
  const auto* raw = reinterpret_cast<const std::byte*>(data);  // the fuzzer's input, as bytes
  const std::vector<std::byte> bytes(raw, raw + size);
  MemoryFile file(bytes);
  if (auto block = qcow2::open_qcow2(file, {.info_only = true}); block.ok()) {
    const LayerInfo info = (*block)->info();
    require(info.cluster_bytes.has_value(), "info knows the cluster size");
  }
  auto block = qcow2::open_qcow2(file, {});
  if (!block.ok()) return 0;
  look_at(**block);
  (void)check(**block, Repair::kNone).ok();
  require(file.bytes() == bytes, "reading and checking write nothing");
  block->reset();
  write_to(bytes, size > 200 ? load_be64(raw + 128) : 0);
  repair(bytes);
  return 0;
}
