#include "image/ops/describe.h"

#include "image/chain.h"

namespace sluicebox::image {

Result<ImageInfo> describe(const std::string& path, const File& file, const Block& block) {
  ImageInfo info;
  info.path = path;
  info.format = block.format();
  info.virtual_bytes = block.size();
  info.allocated_bytes = TRY(file.allocated_bytes());
  info.layer = block.info();
  info.allocated_bytes += info.layer.other_files_bytes;
  if (const std::optional<BackingReference> backing = block.backing()) {
    info.backing = BackingInfo{
        .path = backing->path, .resolved_path = resolve_backing_path(path, backing->path), .format = backing->format};
  }
  return info;
}

}  // namespace sluicebox::image
