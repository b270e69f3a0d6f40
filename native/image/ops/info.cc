#include "image/ops/info.h"

#include "image/chain.h"
#include "image/ops/describe.h"

namespace sluicebox::image {

namespace {

Result<ImageInfo> describe_layer(const Layer& layer, OperationContext& context) {
  ImageInfo info = TRY(describe(layer.path, *layer.file, *layer.block));
  if (layer.locks_unavailable) info.layer.specific.push_back({.name = "locking", .value = std::string("unavailable")});
  if (info.backing) info.backing->exists = backing_exists(layer, *layer.block->backing(), context);
  return info;
}

}  // namespace

Result<ImageInfo> image_info(const std::string& path, const InfoOptions& options, OperationContext& context) {
  TRY(context.cancel.check());
  const Access access = reading(options.shared);
  const Layer top = TRY(open_layer(path, options.format, access, context, Purpose::kInfo));
  ImageInfo info = TRY(describe_layer(top, context));
  if (!options.chain) return info;

  const std::vector<Layer> below = TRY(open_backing_chain(
      {.overlay = &top, .backing = top.block->backing(), .access = access, .purpose = Purpose::kInfo}, context));
  info.chain.push_back(info);
  for (const Layer& layer : below) info.chain.push_back(TRY(describe_layer(layer, context)));
  return info;
}

}  // namespace sluicebox::image
