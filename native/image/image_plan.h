// image_plan.h: the metadata writes of a new, empty image, as planners compute them without I/O.
// Knows: bytes at offsets. Does not know: formats. Pure: equal calls give equal bytes.
// Threads: any; a value.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <span>

#include "base/bytes.h"

namespace sluicebox::image {

inline constexpr std::size_t kMaxImagePlanWrites = 96;
// Enough for every plan; one byte less than a plan needs is kInvalidArgument, and nothing is written beyond it.
inline constexpr std::size_t kImagePlanScratchBytes = 32u << 20;

struct ImagePlanWrite {
  std::uint64_t offset = 0;
  Bytes bytes;  // inside the scratch buffer
};

// What no write covers is zero: the file must be new, or truncated to 0 before.
struct ImagePlan {
  std::array<ImagePlanWrite, kMaxImagePlanWrites> writes;
  std::size_t write_count = 0;
  std::uint64_t total_metadata_bytes = 0;
  std::uint64_t minimum_file_size = 0;
  std::span<const ImagePlanWrite> all() const { return {writes.data(), write_count}; }
};

// Hands out the scratch buffer front to back. Who plans has seen to it that it is large enough.
class ImagePlanBuilder {
 public:
  ImagePlanBuilder(ImagePlan& plan, MutableBytes scratch) : plan_(plan), scratch_(scratch) {}

  // Zeros, to be filled in.
  MutableBytes add(std::uint64_t offset, std::size_t length) {
    const MutableBytes bytes = scratch_.first(length);
    scratch_ = scratch_.subspan(length);
    std::memset(bytes.data(), 0, bytes.size());
    plan_.writes[plan_.write_count++] = {offset, bytes};
    plan_.total_metadata_bytes += length;
    plan_.minimum_file_size = std::max(plan_.minimum_file_size, offset + length);
    return bytes;
  }
  void add(std::uint64_t offset, Bytes content) {
    const MutableBytes bytes = add(offset, content.size());
    std::memcpy(bytes.data(), content.data(), content.size());
  }

 private:
  ImagePlan& plan_;
  MutableBytes scratch_;
};

}  // namespace sluicebox::image
