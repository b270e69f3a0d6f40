#include "image/formats/vhd/describe.h"

namespace sluicebox::image::vhd {

namespace {

const char* subformat_of(DiskType type) {
  switch (type) {
    case DiskType::kFixed:
      return "fixed";
    case DiskType::kDynamic:
      return "dynamic";
    case DiskType::kDifferencing:
      return "differencing";
  }
  return "unknown";
}

}  // namespace

LayerInfo describe_vhd(const ImageState& image) {
  LayerInfo info;
  if (image.footer.type != DiskType::kFixed) info.cluster_bytes = image.header.block_size;
  info.specific.push_back({.name = "subformat", .value = std::string(subformat_of(image.footer.type))});
  info.specific.push_back({.name = "id", .value = guid_text(image.footer.id, /*little_endian=*/false)});
  if (image.footer.type == DiskType::kDifferencing) {
    info.specific.push_back({.name = "parent-id", .value = guid_text(image.header.parent_id, false)});
  }
  return info;
}

}  // namespace sluicebox::image::vhd
