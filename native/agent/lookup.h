// lookup.h: which files a program's name may mean, in the order execvp(3) tries them.
// Knows: PATH. Does not know: the file system; the kernel says which of them it is.
// Threads: values only.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace sluicebox::agent {

// A name with a slash means itself; an empty one nothing. Else one path for each part of the PATH in `env`.
std::vector<std::string> candidates(std::string_view program, const std::vector<std::string>& env);

}  // namespace sluicebox::agent
