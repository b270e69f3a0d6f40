// plan.h: the metadata writes of an empty qcow2 image, computed without I/O.
// Knows: the format's layout (layout.h). Pure and deterministic: equal options give equal bytes.
// Threads: any.
#pragma once

#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/result.h"
#include "image/formats/qcow2/layout.h"
#include "image/image_plan.h"

namespace sluicebox::image::qcow2 {

// Metadata preallocation is not part of a plan: preallocate_metadata() of qcow2.h does it on the open image.
struct PlanOptions {
  std::uint64_t virtual_size = 0;  // a multiple of 512: others count whole sectors and would show less
  std::uint64_t cluster_size = 65536;
  unsigned version = 3;         // 2 or 3
  unsigned refcount_bits = 16;  // 1, 2, 4, 8, 16, 32, 64
  bool lazy_refcounts = false;
  bool extended_l2 = false;  // entries that tell 32 subclusters of each cluster apart
  bool zstd = false;         // how clusters are compressed, if any will be; else deflate
  std::string backing_path;  // empty: none
  std::string backing_format;
};

// The shape alone of such a file; kInvalidArgument where the plan would be.
Result<Geometry> plan_geometry(const PlanOptions& options);
Result<std::size_t> plan_scratch_size(const PlanOptions& options);
Result<ImagePlan> plan_qcow2(const PlanOptions& options, MutableBytes scratch);

}  // namespace sluicebox::image::qcow2
