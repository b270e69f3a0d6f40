// seccomp.h: the system calls that no process of the box may make.
// Knows: the filter that the build generated from seccomp_list.h. Threads: the calling thread only.
#pragma once

#include "base/result.h"

namespace sluicebox::walls {

// With no_new_privs set already. What is started afterwards inherits it.
Status install_seccomp_filter();

}  // namespace sluicebox::walls
