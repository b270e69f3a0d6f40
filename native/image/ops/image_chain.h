// image_chain.h: an image that a caller named, open for reading with all that stands behind it.
// Knows: the chain. Does not know: what it is read for.
// Threads: one operation's thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "image/chain.h"
#include "image/ops/context.h"

namespace sluicebox::image {

struct ImageChain {
  std::vector<Layer> layers;  // the image itself first; never empty

  std::uint64_t size() const { return layers.front().block->size(); }
  std::vector<Block*> blocks() const;
};

// `access`: kRead, or kShared, of all layers.
Result<ImageChain> open_image_chain(const std::string& path, std::optional<DiskFormat> format, Access access,
                                    OperationContext& context);
// The chain of an image that is open already. `also_named`: what else the caller named in the same call; `access`: of
// what stands behind it. `purpose`: kContent or kSalvage.
Result<ImageChain> open_image_chain(Layer image, const std::vector<FileIdentity>& also_named, Access access,
                                    OperationContext& context, Purpose purpose = Purpose::kContent);

}  // namespace sluicebox::image
