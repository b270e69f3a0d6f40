// map_walk.h: what each part of a disk is made of, and which layer of its chain says so.
// Knows: block status of the layers, holes of their files. Reads no data. Does not know: who asks, in what portions.
// Threads: one operation's thread.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/result.h"
#include "image/chain.h"

namespace sluicebox::image {

// The words of qemu-img's map (its JSON keys of the same names).
struct MapExtent {
  std::uint64_t start = 0, length = 0;
  std::uint64_t depth = 0;              // of the layer that answers: 0 is the image itself
  bool present = false;                 // a layer has it; false: no layer does, and it reads as zeros
  bool zero = false;                    // reads as zeros; with `data`: what is mapped is a hole of the file
  bool data = false;                    // the layer holds bytes
  std::optional<std::uint64_t> offset;  // in the layer's file, where it lies there as it is read

  std::uint64_t end() const { return start + length; }
  // The same answer, and it goes on where this one stops.
  bool continued_by(const MapExtent& next) const;
};

class MapWalk {
 public:
  // Borrows: the layers, nearest first, outlive the walk, and nobody writes to them.
  explicit MapWalk(const std::vector<Layer>& layers) : layers_(layers), cursors_(layers.size()) {}

  // One answer, as long as the layers' own answers let it be. `offset` and what it reaches are inside the first layer.
  Result<MapExtent> at(std::uint64_t offset, std::uint64_t length);

 private:
  struct Cursor {
    std::uint64_t start = 0, end = 0;
    BlockStatus status;
    std::optional<bool> maps_holes;  // known once it had to be
  };
  Status look_into_file(MapExtent& extent);
  Result<BlockStatus> layer_status(std::size_t depth, std::uint64_t offset, std::uint64_t length);

  const std::vector<Layer>& layers_;
  std::vector<Cursor> cursors_;  // one a layer: its last answer, so that long ones of lower layers are asked for once
};

}  // namespace sluicebox::image
