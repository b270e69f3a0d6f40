#include "image/ops/map.h"

#include <algorithm>

#include "image/ops/image_chain.h"

namespace sluicebox::image {

namespace {

// One question's worth of metadata stays small, so that a cancel is heard in between.
constexpr std::uint64_t kLongestMapQuestion = std::uint64_t{64} << 30;

}  // namespace

Result<MapPart> map_image(const std::string& path, const MapOptions& options, OperationContext& context) {
  TRY(context.cancel.check());
  const ImageChain chain = TRY(open_image_chain(path, options.format, reading(options.shared), context));
  const std::uint64_t from = std::min(options.start, chain.size());
  const std::uint64_t end = from + std::min(options.length.value_or(chain.size()), chain.size() - from);
  MapWalk walk(chain.layers);
  MapPart part;
  std::optional<MapExtent> open;
  for (std::uint64_t at = from; at < end;) {
    TRY(context.cancel.check());
    const MapExtent next = TRY(walk.at(at, std::min(end - at, kLongestMapQuestion)));
    at = next.end();
    if (open && open->continued_by(next)) {
      open->length += next.length;
      continue;
    }
    if (open) part.extents.push_back(*open);
    if (part.extents.size() == options.most_extents) {
      part.next = next.start;
      return part;
    }
    open = next;
  }
  if (open) part.extents.push_back(*open);
  return part;
}

}  // namespace sluicebox::image
