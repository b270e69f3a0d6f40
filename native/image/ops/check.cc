#include "image/ops/check.h"

#include "image/chain.h"
#include "image/printable.h"

namespace sluicebox::image {

Result<CheckReport> check_image(const std::string& path, const CheckOptions& options, OperationContext& context) {
  TRY(context.cancel.check());
  if (options.shared && options.repair != Repair::kNone) {
    return Error(ErrorCode::kInvalidArgument, "shared: an image that another program writes is not repaired").on(path);
  }
  const Access access = options.repair == Repair::kNone ? reading(options.shared) : Access::kWrite;
  const Layer layer = TRY(open_layer(path, options.format, access, context, Purpose::kRepair));
  if (layer.block->format() == DiskFormat::kRaw) {
    return Error(ErrorCode::kUnsupported, printable(path) + " is raw, and a raw image has no metadata to check")
        .on(path);
  }
  return layer.block->check(options.repair, context.progress, context.cancel);
}

}  // namespace sluicebox::image
