// failure.h: what a wall that cannot be built says: the step, errno, the path.
// Knows: errors. Threads: values only.
#pragma once

#include <string>

#include "base/result.h"

namespace sluicebox::walls {

// `step` reads like "mount the box's /proc"; the message is "cannot <step>: <reason>". kBoxStart, but for no space
// left.
Error failure(int saved_errno, const std::string& step, std::string path = {});

// What the caller asked for and this host cannot give.
Error unsupported(int saved_errno, const std::string& step, std::string path, std::string hint);

}  // namespace sluicebox::walls
