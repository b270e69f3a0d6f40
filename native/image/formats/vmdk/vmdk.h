// vmdk.h: a VMDK disk as a Block: a descriptor, and the files that it says the disk consists of.
// Knows: its files. Does not know: other layers, locks, paths, operations.
// Threads: as block.h.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "image/block.h"
#include "image/file.h"
#include "image/metadata_budget.h"

namespace sluicebox::image::vmdk {

// Opens the file that a descriptor names as a part of the disk: the same for the same file, and as writable as the
// image. It outlives the block. The name is whatever the image says: judging it is the opener's.
using OpenExtent = std::function<Result<File*>(const std::string& name)>;

struct OpenOptions {
  bool writable = false;
  bool for_repair = false;  // opened by check with repair: damage does not refuse it
  bool salvage = false;     // redundant directories are not looked at, and a grain that the file's end cuts is damage
  OpenExtent open_extent = nullptr;  // absent: disks of one file only
  std::shared_ptr<MetadataBudget> budget = nullptr;
};

// `file` outlives the block. kImageFormat for a file that is only a part of a disk.
Result<std::unique_ptr<Block>> open_vmdk(File& file, const OpenOptions& options);

// The first bytes say VMDK: a sparse file of its own descriptor, or a descriptor.
bool probe_vmdk(Bytes head);

// 32 random bits that no reader takes for "none".
Result<std::uint32_t> draw_content_id();
// As content_id() of the block spells it.
std::string content_id_text(std::uint32_t cid);
std::optional<std::uint32_t> content_id_from_text(const std::string& text);

}  // namespace sluicebox::image::vmdk
