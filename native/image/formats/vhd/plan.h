// plan.h: the metadata writes of an empty VHD, over a parent or not, computed without I/O.
// Knows: the format's layout (layout.h). Pure and deterministic: equal options give equal bytes.
// Threads: any.
#pragma once

#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/result.h"
#include "image/formats/vhd/layout.h"
#include "image/guid.h"
#include "image/image_plan.h"

namespace sluicebox::image::vhd {

// The disk is of exactly this size: the geometry is the largest, and the creator one that goes by the size ("qem2"), as
// `qemu-img create -f vpc -o force_size=on` writes them.
struct PlanOptions {
  std::uint64_t virtual_size = 0;  // a multiple of 512, at most 2040 GiB; of a fixed one not 0
  bool fixed = false;
  std::uint64_t block_size = kDefaultBlockBytes;  // 512 KiB to 256 MiB, a power of two; nothing for a fixed one
  Guid id = {};
  std::uint32_t timestamp = 0;  // seconds since 2000-01-01 UTC

  // Of a differencing image.
  std::string parent_path = {};   // empty: none
  Guid parent_id = {};            // the parent's own
  std::uint32_t parent_time = 0;  // when the parent was last written, counted as `timestamp` is
};

Result<std::size_t> plan_scratch_size(const PlanOptions& options);
Result<ImagePlan> plan_vhd(const PlanOptions& options, MutableBytes scratch);

}  // namespace sluicebox::image::vhd
