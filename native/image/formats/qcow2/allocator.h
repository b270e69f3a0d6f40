// allocator.h: finds free host clusters, lowest first, and takes them.
// Knows: stored reference counts, what a survey found in use, where metadata lies. Does not know: what a cluster will
// hold. Threads: the one writer.
#pragma once

#include <cstdint>
#include <optional>

#include "base/result.h"
#include "image/formats/qcow2/image_state.h"
#include "image/formats/qcow2/refcounts.h"
#include "image/formats/qcow2/reference_counter.h"

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
  // As many side by side, behind the end of the file; the blocks that are to count them lie before them.
  Result<ClusterRun> allocate_row(std::uint64_t clusters);
  // Passes over everything inside the file: what comes next has never held a byte.
  void skip_to_file_end();
  // Called before the first allocate(): a stored count of 0 is only believed where nothing was found to refer to the
  // cluster. Without a survey of all there is, nothing inside the file is believed to be free.
  void set_in_use(ReferenceCounter counts) { in_use_ = std::move(counts); }
  // References to the cluster that were found and are not taken back since.
  std::uint64_t found_references(std::uint64_t cluster) const { return in_use_.get(cluster); }
  // The cluster behind the last one that anything was found to refer to. Nothing where not all could be followed.
  std::optional<std::uint64_t> found_end() const;
  // The cluster got another reference.
  void raised(std::uint64_t cluster) { (void)in_use_.add(cluster, 1); }
  // The cluster lost a reference, and its stored count is `left`.
  void lowered(std::uint64_t cluster, std::uint64_t left);

 private:
  Result<bool> is_free(std::uint64_t cluster);

  ImageState& image_;
  Refcounts& refcounts_;
  ReferenceCounter in_use_;
  std::uint64_t floor_ = 0;   // nothing below is ever given out
  std::uint64_t cursor_ = 0;  // no free cluster lies below
};

}  // namespace sluicebox::image::qcow2
