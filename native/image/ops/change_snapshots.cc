#include "image/ops/change_snapshots.h"

#include "base/progress.h"
#include "image/chain.h"

namespace sluicebox::image {

Status change_snapshots(const std::string& path, const SnapshotOptions& options, OperationContext& context) {
  TRY(context.cancel.check());
  const Layer image = TRY(open_layer(path, options.format, Access::kWrite, context));
  Block& block = *image.block;
  TRY(block.may_be_written(Writing::kBytes));
  NoProgress silent;  // reading tables has no scale that a caller would know
  TRY(block.prepare_to_write(Writing::kBytes, silent, context.cancel));
  // What follows is not undone half-way.
  if (!context.cancel.try_commit()) return Error(ErrorCode::kCancelled, "the change was cancelled");
  switch (options.change) {
    case SnapshotChange::kCreate:
      return block.create_snapshot(options.name, silent, context.cancel);
    case SnapshotChange::kApply:
      return block.apply_snapshot(options.name, silent, context.cancel);
    case SnapshotChange::kRemove:
      return block.remove_snapshot(options.name, silent, context.cancel);
  }
  return Error(ErrorCode::kInternal, "no such change of snapshots");
}

}  // namespace sluicebox::image
