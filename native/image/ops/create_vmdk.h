// create_vmdk.h: writes a new VMDK disk, and publishes the files that it consists of together.
// Knows: the planner, new files. Does not know: how its size and its backing were found.
// Threads: one worker a call.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "image/image_info.h"
#include "image/ops/context.h"
#include "image/ops/create.h"
#include "image/ops/new_file.h"

namespace sluicebox::image {

struct VmdkRequest {
  const CreateOptions& options;
  const VmdkCreate& format;
  std::uint64_t size = 0;
  std::optional<std::string> backing_content_id;  // absent: there is no backing, or nobody looked
};

// `made` is what gets the name `path`. The other files of the disk appear before it, each refused where there is one
// and no `overwrite`; when one cannot, those before it go again and what they replaced comes back. Killed between two
// of them, there is no new image; an old one that was being replaced may be lost then.
Result<ImageInfo> create_vmdk(const std::string& path, NewFile& made, const VmdkRequest& request,
                              const std::vector<Layer>& backing, const NewContent* content, OperationContext& context);

}  // namespace sluicebox::image
