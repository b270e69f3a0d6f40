#include "image/formats/qcow2/disk_reader.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

#include "image/formats/qcow2/mapping.h"

namespace sluicebox::image::qcow2 {

namespace {

Status read_extent(const ImageState& image, const Extent& extent, std::uint64_t offset, MutableBytes out,
                   std::optional<Inflater>& inflater) {
  if (extent.kind == EntryKind::kData) {
    // The last cluster may be cut by the end of the file.
    return image.salvage ? read_exact(image.file, extent.host, out, "a cluster")
                         : read_padded(image.file, extent.host, out);
  }
  if (extent.kind != EntryKind::kCompressed) {
    std::memset(out.data(), 0, out.size());
    return {};
  }
  const Geometry& geometry = image.geometry();
  if (!inflater) inflater.emplace(compression_of(image));
  std::vector<std::byte> stream(std::min(extent.compressed_bytes, image.file_end - extent.host));
  TRY(read_exact(image.file, extent.host, stream, "a compressed cluster"));
  if (out.size() == geometry.cluster()) {
    if (inflater->inflate(stream, out)) return {};
  } else {
    std::vector<std::byte> cluster(geometry.cluster());
    if (inflater->inflate(stream, cluster)) {
      std::memcpy(out.data(), cluster.data() + geometry.in_cluster(offset), out.size());
      return {};
    }
  }
  return image.corrupt("a compressed cluster does not inflate to one cluster", extent.host);
}

}  // namespace

Status read_disk(ImageState& image, std::uint64_t offset, MutableBytes out) {
  std::optional<Inflater> inflater;
  while (!out.empty()) {
    const Extent extent = TRY(find_extent(image, offset, out.size()));
    TRY(read_extent(image, extent, offset, out.first(extent.length), inflater));
    offset += extent.length;
    out = out.subspan(extent.length);
  }
  return {};
}

}  // namespace sluicebox::image::qcow2
