// survey.h: walks everything that refers to host clusters, each table once, and counts.
// Knows: an open image. Does not know: the stored reference counts, repair. Writes nothing.
// Threads: one.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "base/cancel.h"
#include "base/progress.h"
#include "base/result.h"
#include "image/block.h"
#include "image/formats/qcow2/image_state.h"
#include "image/formats/qcow2/reference_counter.h"

namespace sluicebox::image::qcow2 {

// Adds to a report; keeps the first 1,000 in words.
void report_corruption(CheckReport& report, const char* kind, std::uint64_t offset, std::string message);
void report_leak(CheckReport& report, std::uint64_t offset, std::string message);

struct SurveyedL2 {
  std::uint32_t uses = 0;      // by how many L1 entries, snapshots' included
  bool active = false;         // the active L1 table is among them
  std::uint64_t l1_index = 0;  // there
};

struct Survey {
  ReferenceCounter counts;
  // Something could not be followed, so a cluster that looks unused may be in use: no count may be lowered.
  bool complete = true;
  std::map<std::uint64_t, SurveyedL2> l2_tables;  // by offset
  // By refcount table index: blocks whose cluster nothing else refers to. No other is read as counts, and none written:
  // what it holds may be a guest's bytes. The reference of one that is not usable is not among the counts.
  std::vector<bool> usable_blocks;
  bool refcounts_damaged = false;  // the refcount structure itself has to be made anew
  // A guest's cluster lies over metadata, so that a change of the metadata could change what the guest reads.
  bool data_over_metadata = false;
};

Result<Survey> survey_references(ImageState& image, CheckReport& report, ProgressSink& progress,
                                 const CancelToken& cancel);

}  // namespace sluicebox::image::qcow2
