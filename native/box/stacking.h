// stacking.h: one new layer over each disk of a box, for a snapshot of it, and taken back where it comes to nothing.
// Knows: layers, the box's record. Does not know: QEMU.
// Threads: a worker's, under the box's layers_turn().
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "box/box.h"
#include "box/layers.h"

namespace sluicebox::box {

// Each new layer is empty until somebody writes to it, so a record that names it is as good as one that does not.
class Stacking {
 public:
  // `directory`: the box's own.
  Stacking(std::shared_ptr<Box> box, int directory) : box_(std::move(box)), directory_(directory) {}
  // Takes the layers back, unless they are kept.
  ~Stacking() {
    if (!kept_) undo();
  }
  Stacking(const Stacking&) = delete;
  Stacking& operator=(const Stacking&) = delete;

  Status begin(image::OperationContext& context);
  void keep() { kept_ = true; }

  // By disk; nothing for one without a layer of the box's own.
  const std::vector<std::optional<NewLayer>>& layers() const { return layers_; }
  // As they were before: what the snapshot is of.
  std::vector<SnapshotDisk> disks() const;
  // What those take of the file system, in bytes.
  std::uint64_t space() const;

 private:
  void undo();

  const std::shared_ptr<Box> box_;
  const int directory_;
  BoxRecord before_;
  std::vector<std::optional<NewLayer>> layers_;
  bool named_ = false;  // in the record, it may be
  bool kept_ = false;
};

}  // namespace sluicebox::box
