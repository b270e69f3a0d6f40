// mapping.h: from guest offsets to what the image holds there, in the longest runs that one answer covers.
// Knows: an open image. Does not know: how anything is changed.
// Threads: as block.h, read side.
#pragma once

#include <cstdint>
#include <memory>

#include "base/result.h"
#include "image/formats/qcow2/image_state.h"
#include "image/formats/qcow2/l2_entry.h"

namespace sluicebox::image::qcow2 {

struct Extent {
  EntryKind kind = EntryKind::kUnallocated;
  std::uint64_t length = 0;  // from the offset asked for; > 0
  // kCompressed: of the cluster's stream; else of the first byte, where a cluster is there or kept for later; else 0.
  std::uint64_t host = 0;
  std::uint64_t compressed_bytes = 0;  // kCompressed: readable bytes of the stream
};

// The L2 table of an L1 entry that is not empty, or why it cannot be followed.
Result<std::shared_ptr<CachedTable>> load_l2(ImageState& image, std::uint64_t l1_index);

// One entry, checked: aligned, within the file, not over metadata. `at` is where the entry lies, for the message.
Status check_entry(const ImageState& image, const L2Entry& entry, std::uint64_t at);

// A compressed cluster is an extent of its own; the rest is coalesced unit by unit, what has a place as long as it is
// contiguous in the file. Damage ends an extent; it is an error where it is the first thing met. `offset + length` is
// within the L1 table.
Result<Extent> find_extent(ImageState& image, std::uint64_t offset, std::uint64_t length);

}  // namespace sluicebox::image::qcow2
