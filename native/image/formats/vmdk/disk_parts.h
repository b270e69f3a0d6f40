// disk_parts.h: opens what a VMDK disk consists of: its descriptor, and each part that it names.
// Knows: descriptors, headers, extents. Does not know: what is done with them.
// Threads: one operation's thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "image/block.h"
#include "image/formats/vmdk/descriptor.h"
#include "image/formats/vmdk/extent.h"
#include "image/formats/vmdk/header.h"
#include "image/formats/vmdk/vmdk.h"

namespace sluicebox::image::vmdk {

// A part of the disk: bytes [start, end) of it.
struct Part {
  std::uint64_t start = 0, end = 0;
  ExtentKind kind = ExtentKind::kSparse;
  bool unclean = false;  // its header says that its last writer did not close it
  std::unique_ptr<Extent> extent;
};

struct OpenedDisk {
  Descriptor descriptor;
  std::optional<SparseHeader> header;  // where all lies in one sparse file: that file's own
  std::vector<Part> parts;             // one at least, in the order of the disk
};

Result<OpenedDisk> open_disk(File& file, const OpenOptions& options);

// Under the names that qemu-img gives them.
LayerInfo describe_parts(const File& file, const Descriptor& descriptor, const std::vector<Part>& parts);

}  // namespace sluicebox::image::vmdk
