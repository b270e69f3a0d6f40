// allocator.h: finds free host clusters, lowest first, and takes them.
// Knows: reference counts, where metadata lies. Does not know: what a cluster will hold.
// Threads: the one writer.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "image/formats/qcow2/image_state.h"
#include "image/formats/qcow2/refcounts.h"

namespace sluicebox::image::qcow2 {

struct ClusterRun {
  std::uint64_t offset = 0;
  std::uint64_t clusters = 0;
};

class Allocator {
 public:
  Allocator(ImageState& image, Refcounts& refcounts) : image_(image), refcounts_(refcounts) {}

  // 1 to `most` clusters side by side, each now counted once. kImageCorrupt when a cluster that nobody counts holds
  // metadata.
  Result<ClusterRun> allocate(std::uint64_t most);
  // Passes over everything inside the file: what comes next has never held a byte.
  void skip_to_file_end();
  // The cluster is free again (its count is 0).
  void freed(std::uint64_t cluster);

 private:
  Result<bool> is_free(std::uint64_t cluster);

  ImageState& image_;
  Refcounts& refcounts_;
  std::uint64_t cursor_ = 0;  // no free cluster lies below
};

}  // namespace sluicebox::image::qcow2
