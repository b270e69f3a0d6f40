// plan.h: the metadata writes of an empty VMDK image, and of the files that it consists of, computed without I/O.
// Knows: the format's layout (layout.h). Pure and deterministic: equal options give equal bytes.
// Threads: any.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/result.h"
#include "image/formats/vmdk/layout.h"
#include "image/image_plan.h"

namespace sluicebox::image::vmdk {

enum class Subformat : std::uint8_t {
  kMonolithicSparse,
  kMonolithicFlat,
  kTwoGbMaxExtentSparse,
  kTwoGbMaxExtentFlat,
  kStreamOptimized
};
inline constexpr std::array<Subformat, 5> kSubformats = {Subformat::kMonolithicSparse, Subformat::kMonolithicFlat,
                                                         Subformat::kTwoGbMaxExtentSparse,
                                                         Subformat::kTwoGbMaxExtentFlat, Subformat::kStreamOptimized};
const char* subformat_name(Subformat subformat);  // as createType spells it

enum class Adapter : std::uint8_t { kIde, kLsiLogic, kBusLogic };
inline constexpr std::array<Adapter, 3> kAdapters = {Adapter::kIde, Adapter::kLsiLogic, Adapter::kBusLogic};
const char* adapter_name(Adapter adapter);  // as ddb.adapterType spells it

struct PlanOptions {
  std::uint64_t virtual_size = 0;  // a multiple of 512, not 0: no reader opens a disk without sectors
  Subformat subformat = Subformat::kMonolithicSparse;
  std::uint64_t grain_size = 65536;  // bytes, a power of two from 4096 to 65536; flat files have none
  Adapter adapter = Adapter::kIde;
  std::uint32_t cid = 0;
  std::string name = "disk.vmdk";        // of the image's file, without its folder
  std::string parent_hint;               // empty: none
  std::uint32_t parent_cid = kNoParent;  // of that one
};

// One file.
struct FilePlan : ImagePlan {
  std::uint64_t data_bytes = 0;  // a flat extent has no metadata, but a length
};

struct Plan {
  FilePlan image;                // what gets the image's own name
  std::uint64_t extents = 0;     // files beside it, named by extent_file_name()
  FilePlan extent, last_extent;  // what each of them but the last is, and the last
  const FilePlan& extent_plan(std::uint64_t index) const { return index + 1 == extents ? last_extent : extent; }
};

// "disk-flat.vmdk", "disk-s001.vmdk" or "disk-f001.vmdk"; `index` from 0.
std::string extent_file_name(const PlanOptions& options, std::uint64_t index);

Result<std::size_t> plan_scratch_size(const PlanOptions& options);
Result<Plan> plan_vmdk(const PlanOptions& options, MutableBytes scratch);

}  // namespace sluicebox::image::vmdk
