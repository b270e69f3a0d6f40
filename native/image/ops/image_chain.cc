#include "image/ops/image_chain.h"

#include <utility>

namespace sluicebox::image {

std::vector<Block*> ImageChain::blocks() const {
  std::vector<Block*> all;
  all.reserve(layers.size());
  for (const Layer& layer : layers) all.push_back(layer.block.get());
  return all;
}

Result<ImageChain> open_image_chain(const std::string& path, std::optional<DiskFormat> format, Access access,
                                    OperationContext& context) {
  return open_image_chain(TRY(open_layer(path, format, access, context)), {}, access, context);
}

Result<ImageChain> open_image_chain(Layer image, const std::vector<FileIdentity>& also_named, Access access,
                                    OperationContext& context, Purpose purpose) {
  std::vector<Layer> below = TRY(open_backing_chain({.overlay = &image,
                                                     .backing = image.block->backing(),
                                                     .also_named = also_named,
                                                     .access = access,
                                                     .purpose = purpose},
                                                    context));
  ImageChain chain;
  chain.layers.reserve(below.size() + 1);
  chain.layers.push_back(std::move(image));
  for (Layer& layer : below) chain.layers.push_back(std::move(layer));
  return chain;
}

}  // namespace sluicebox::image
