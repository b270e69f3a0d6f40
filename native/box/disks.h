// disks.h: the disks of a virtual machine: overlays that the image engine writes, and all layers below them, opened.
// Knows: records, images. Does not know: QEMU, how a box runs.
// Threads: a worker's.
#pragma once

#include <string>
#include <vector>

#include "base/cancel.h"
#include "base/path_policy.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "box/record.h"
#include "image/chain.h"

namespace sluicebox::box {

// Makes each disk's overlay in the box's directory and notes what lies under it. `storage_bytes`: the root overlay's
// size; 0: its base's.
Result<std::vector<DiskRecord>> make_disks(const BoxSpec& spec, const std::string& directory, const PathPolicy& policy);

struct OpenLayer {
  image::DiskFormat format{};
  UniqueFd file;
};
// A descriptor of its own for a layer that the image engine has open.
Result<OpenLayer> reopen(const image::Layer& layer, bool writable);
// kUnsupported for formats that no disk of a machine consists of: QEMU reads some of them otherwise than this engine.
Status require_machine_format(const image::Layer& layer);
Result<std::vector<FileFacts>> chain_facts(const std::vector<image::Layer>& layers);

struct OpenDisk {
  bool writable = true;           // its first layer, that is; what lies below is read only
  std::vector<OpenLayer> layers;  // nearest first
  std::uint64_t size = 0;         // bytes of the disk
};

// For QEMU, which knows no paths: descriptors without locks of ours. kImageChain when what lies under an overlay is no
// longer what it was, kImageLocked when somebody else is at it.
Result<std::vector<OpenDisk>> open_disks(const BoxRecord& record, const std::string& directory,
                                         const PathPolicy& policy);

// What may lie under the disk's overlay, wherever it is.
std::vector<image::FileIdentity> bases_of(const DiskRecord& disk);

// The box's own file of a disk, or what the caller named where it has none.
std::string disk_path(const BoxRecord& record, std::size_t disk, const std::string& directory);

}  // namespace sluicebox::box
