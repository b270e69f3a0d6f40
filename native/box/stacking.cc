#include "box/stacking.h"

#include <unistd.h>

#include "image/ops/info.h"

namespace sluicebox::box {

Status Stacking::begin(image::OperationContext& context) {
  before_ = box_->record();
  const std::string folder = box_->home().path_of(before_.id);
  for (std::size_t i = 0; i < before_.disks.size(); ++i) {
    auto& layer = layers_.emplace_back();
    const std::string& overlay = before_.disks[i].overlay;
    if (overlay.empty()) continue;
    const image::ImageInfo info =
        TRY(image::image_info(std::string(folder).append("/").append(overlay),
                              {.format = image::DiskFormat::kQcow2, .shared = true}, context));
    layer = TRY(stack_layer(directory_, folder, i, overlay, info.virtual_bytes, before_.disks[i].bases, context));
  }
  named_ = true;
  return box_->update([this](BoxRecord& record) {
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      if (!layers_[i]) continue;
      record.disks[i].overlay = layers_[i]->name;
      record.disks[i].bases = layers_[i]->bases;
    }
  });
}

std::vector<SnapshotDisk> Stacking::disks() const {
  std::vector<SnapshotDisk> disks;
  for (std::size_t i = 0; i < before_.disks.size(); ++i) {
    const DiskRecord& disk = before_.disks[i];
    disks.push_back(
        {.overlay = disk.overlay, .bases = disk.bases, .size = layers_[i] ? layers_[i]->size : std::uint64_t{0}});
  }
  return disks;
}

std::uint64_t Stacking::space() const {
  std::uint64_t space = 0;
  for (const DiskRecord& disk : before_.disks)
    if (!disk.overlay.empty()) space += space_of(directory_, disk.overlay);
  return space;
}

void Stacking::undo() {
  // A record that names them still is as good: they are empty.
  if (named_ && !box_->update([this](BoxRecord& record) { record.disks = before_.disks; }).ok()) return;
  for (const auto& layer : layers_)
    if (layer) ::unlinkat(directory_, layer->name.c_str(), 0);
}

}  // namespace sluicebox::box
