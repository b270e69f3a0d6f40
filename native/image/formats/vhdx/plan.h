// plan.h: the metadata writes of an empty VHDX, over a parent or not, computed without I/O.
// Knows: the format's layout (layout.h). Pure and deterministic: equal options give equal bytes.
// Threads: any.
#pragma once

#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/result.h"
#include "image/formats/vhdx/layout.h"
#include "image/image_plan.h"

namespace sluicebox::image::vhdx {

struct PlanOptions {
  std::uint64_t virtual_size = 0;  // whole logical sectors, at least one, at most 64 TiB
  bool fixed = false;
  std::uint64_t block_size = 0;     // 1 to 256 MiB, a power of two; 0: default_block_size()
  std::uint64_t log_size = kMiB;    // whole MiB, at most 64
  std::uint32_t sector_size = 512;  // logical and physical: 512 or 4096
  Guid file_write = {}, data_write = {}, page83 = {};

  // Of a differencing image, whose sectors are as large as the parent's.
  std::string parent_path = {};  // empty: none
  Guid parent_link = {};         // the parent's data_write
};

// As qemu-img chooses it: 8 MiB for disks up to 1 GiB, 16 up to 100 GiB, 32 up to 32 TiB, else 64.
std::uint64_t default_block_size(std::uint64_t virtual_size);

Result<std::size_t> plan_scratch_size(const PlanOptions& options);
Result<ImagePlan> plan_vhdx(const PlanOptions& options, MutableBytes scratch);

}  // namespace sluicebox::image::vhdx
