// plan.h: the metadata writes of an empty qcow2 image, computed without I/O.
// Knows: the format's layout (layout.h). Pure and deterministic: equal options give equal bytes.
// Threads: any.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/bytes.h"
#include "base/result.h"

namespace sluicebox::image::qcow2 {

inline constexpr std::size_t kMaxPlanWrites = 96;

// Metadata preallocation is not part of a plan: preallocate_metadata() of qcow2.h does it on the open image.
struct PlanOptions {
  std::uint64_t virtual_size = 0;  // a multiple of 512: others count whole sectors and would show less
  std::uint64_t cluster_size = 65536;
  unsigned version = 3;         // 2 or 3
  unsigned refcount_bits = 16;  // 1, 2, 4, 8, 16, 32, 64
  bool lazy_refcounts = false;
  bool extended_l2 = false;  // kUnsupported
  std::string backing_path;  // empty: none
  std::string backing_format;
};

struct PlanWrite {
  std::uint64_t offset = 0;
  Bytes bytes;  // inside the scratch buffer
};

struct Plan {
  std::array<PlanWrite, kMaxPlanWrites> writes;
  std::size_t write_count = 0;
  std::uint64_t total_metadata_bytes = 0;
  std::uint64_t minimum_file_size = 0;
  std::span<const PlanWrite> all() const { return {writes.data(), write_count}; }
};

// 32 MiB of scratch suffice for every plan; one byte too little is kInvalidArgument and nothing is written beyond it.
// What no write covers is zero: the file must be new, or truncated to 0 before.
inline constexpr std::size_t kPlanScratchBytes = 32u << 20;
Result<std::size_t> plan_scratch_size(const PlanOptions& options);
Result<Plan> plan_qcow2(const PlanOptions& options, MutableBytes scratch);

}  // namespace sluicebox::image::qcow2
