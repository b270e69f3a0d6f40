// backing_update.h: rewrites the backing reference in the header, so that a crash leaves the old one or the new one.
// Knows: the first cluster. Does not know: guest data.
// Threads: the one writer.
//
// What a disk writes whole is one sector, and the header, the format and the other extensions may be longer. So the new
// path goes first to bytes of the first cluster that the old header does not refer to; then one write of the first
// sector, which holds the header and every extension, switches; then whatever the new header does not refer to is
// cleared. Feature names (a courtesy to readers) are cut to what fits in the sector. The price: where the first
// sector has no room for the other extensions, or the cluster (2 KiB or less) none for both paths side by side, the
// change is refused.
#pragma once

#include <optional>

#include "base/result.h"
#include "image/block.h"
#include "image/formats/qcow2/image_state.h"

namespace sluicebox::image::qcow2 {

// kInvalidArgument when the path is too long or has no place, kUnsupported when the extensions are in the way.
Status can_update_backing(const ImageState& image, const std::optional<BackingReference>& backing);
Status update_backing(ImageState& image, const std::optional<BackingReference>& backing);

}  // namespace sluicebox::image::qcow2
