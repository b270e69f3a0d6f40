// probe.h: which format the first bytes of a file (or, of a fixed VHD, the last) speak of. Only for files that a caller
// named. Knows: magic numbers. Does not know: how a format goes on. Threads: any.
#pragma once

#include <optional>

#include "base/bytes.h"
#include "base/result.h"
#include "image/disk_format.h"
#include "image/file.h"

namespace sluicebox::image {

// The format recognised by a header or footer; nothing where none is (a raw disk, then, or a guess that is not ours to
// make). kUnsupported for the header of a format, or a version, that this engine does not build.
Result<std::optional<DiskFormat>> probe_format(const File& file);

}  // namespace sluicebox::image
