// qcow2_plan_fuzz.cc: any options give a refusal, or a plan whose bookkeeping is right and whose bytes are an image.
// Input: 24 bytes of options, then the backing path (the layout that all planner targets share).
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/checked.h"
#include "image/formats/qcow2/plan.h"
#include "image/formats/qcow2/qcow2.h"
#include "test/image/memory_file.h"

namespace {

using namespace sluicebox;         // NOLINT(google-build-using-namespace): a program of its own
using namespace sluicebox::image;  // NOLINT(google-build-using-namespace)

std::uint64_t runs = 0;
std::uint64_t deepest = 0;

// The target is worth nothing if no input gets through to the last assertion.
void tell() {
  std::printf("qcow2_plan_fuzz: deepest assertion ran %llu times\n", static_cast<unsigned long long>(deepest));
  std::fflush(stdout);
  if (runs > 10000 && deepest == 0) std::_Exit(1);
}

void require(bool holds, const char* invariant) {
  if (holds) return;
  std::fprintf(stderr, "broken: %s\n", invariant);
  std::abort();
}

qcow2::PlanOptions options_from(const std::uint8_t* data, std::size_t size) {
  const auto* bytes = reinterpret_cast<const std::byte*>(data);  // the fuzzer's input, as bytes
  constexpr unsigned kBits[] = {1, 2, 4, 8, 16, 32, 64, 0xff};
  qcow2::PlanOptions options;
  options.refcount_bits = kBits[data[1] % 8];
  options.extended_l2 = (data[2] & 1) != 0;
  options.lazy_refcounts = (data[2] & 2) != 0;
  options.version = (data[2] & 4) != 0 ? 3 : 2;
  options.virtual_size = load_le64(bytes + 8);
  options.cluster_size = load_le32(bytes + 16);
  if ((data[6] & 1) == 0) return options;
  const unsigned code = data[7] % 130;
  const std::size_t length = code < 128 ? code : code == 128 ? 1024 : 1025;
  options.backing_path.assign(length, 'p');
  for (std::size_t i = 0; i < length && 24 + i < size; ++i) options.backing_path[i] = static_cast<char>(data[24 + i]);
  constexpr const char* kFormats[] = {"raw", "qcow2", "vmdk", "vpc", "vhdx"};
  if ((data[6] & 2) != 0) options.backing_format = kFormats[(data[6] >> 4) % 5];
  return options;
}

void check_bookkeeping(const qcow2::Plan& plan, Bytes scratch) {
  std::vector<qcow2::PlanWrite> sorted(plan.all().begin(), plan.all().end());
  std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.offset < b.offset; });
  std::uint64_t sum = 0;
  std::uint64_t end = 0;
  for (const qcow2::PlanWrite& write : sorted) {
    require(write.bytes.data() >= scratch.data() &&
                write.bytes.data() + write.bytes.size() <= scratch.data() + scratch.size(),
            "I8: writes lie in the scratch buffer");
    require(write.offset >= end, "I2: no two writes overlap");
    const auto write_end = checked_add(write.offset, write.bytes.size());
    require(write_end.has_value(), "I3: no end overflows");
    end = *write_end;
    sum += write.bytes.size();
  }
  require(plan.write_count <= 96, "I4: at most 96 writes");
  require(sum == plan.total_metadata_bytes, "I1: the total is the sum");
  require(end == plan.minimum_file_size, "I2: the largest end is the minimum file size");
  require(checked_add(sum, end).has_value(), "I3: total and size do not overflow");
}

void check_image(const qcow2::PlanOptions& options, const qcow2::Plan& plan) {
  std::vector<std::byte> bytes(plan.minimum_file_size);
  for (const qcow2::PlanWrite& write : plan.all()) {
    std::copy(write.bytes.begin(), write.bytes.end(), bytes.begin() + static_cast<std::ptrdiff_t>(write.offset));
  }
  MemoryFile file(std::move(bytes));
  auto block = qcow2::open_qcow2(file, {});
  require(block.ok(), "I5: the plan re-parses");
  require((*block)->size() == options.virtual_size, "I5: with the size asked for");
  const auto backing = (*block)->backing();
  require(backing.has_value() == !options.backing_path.empty(), "I5: with a backing if one was asked for");
  if (backing) {
    require(backing->path == options.backing_path && backing->format.value_or("") == options.backing_format,
            "I5: with the backing asked for");
  }
  NoProgress progress;
  const CancelToken cancel;
  auto report = (*block)->check(Repair::kNone, progress, cancel);
  require(report.ok() && report->corruptions == 0 && report->leaks == 0, "I6: the image is clean");
  ++deepest;
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  std::atexit(tell);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  ++runs;
  if (size < 24) return 0;
  const qcow2::PlanOptions options = options_from(data, size);
  const auto need = qcow2::plan_scratch_size(options);
  if (!need.ok()) return 0;
  require(need.value() <= qcow2::kPlanScratchBytes, "I8: 32 MiB of scratch suffice");
  std::vector<std::byte> scratch(need.value(), std::byte{0xaa});
  const auto plan = qcow2::plan_qcow2(options, scratch);
  require(plan.ok(), "I8: the scratch asked for suffices");
  check_bookkeeping(plan.value(), scratch);

  std::vector<std::byte> again(need.value(), std::byte{0x55});
  const auto twin = qcow2::plan_qcow2(options, again);
  require(twin.ok() && scratch == again && twin.value().write_count == plan.value().write_count,
          "I7: equal options give equal bytes");
  if (need.value() > 0) {
    std::vector<std::byte> small(need.value() - 1);
    const auto refused = qcow2::plan_qcow2(options, small);
    require(!refused.ok() && refused.error().code == ErrorCode::kInvalidArgument, "I8: one byte too little is refused");
  }
  // Capped before anything of that size is allocated.
  if (plan.value().minimum_file_size <= (16u << 20)) check_image(options, plan.value());
  return 0;
}
