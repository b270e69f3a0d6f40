// survey.h: one walk over all tables of a sparse file: what they refer to, and whether each grain is one's own.
// Knows: the map. Does not know: guest bytes.
// Threads: the one thread that has the file.
//
// A grain is known by its slot: the file cut into grains, from the place where the first one begins. Files whose grains
// begin at other places too were made by nobody that this engine knows; such a grain counts as damaged.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/cancel.h"
#include "base/progress.h"
#include "base/result.h"
#include "image/block.h"
#include "image/formats/vmdk/grain_map.h"

namespace sluicebox::image::vmdk {

struct Survey {
  std::string damage;          // of the first entry that must not be written through; empty: none
  std::uint64_t phase = 0;     // sectors: grains begin there, modulo their size
  std::uint64_t data_end = 0;  // sectors: behind the last grain, or the metadata
};

// Not for compressed files. Counts go to `report` where there is one, and repairs to the file: kAll brings redundant
// tables and tables together where one of them is plainly wrong, kLeaks cuts the end of the file off that no grain
// lies in.
Result<Survey> survey_grains(GrainMap& map, Repair repair, CheckReport* report, ProgressSink& progress,
                             const CancelToken& cancel);

}  // namespace sluicebox::image::vmdk
