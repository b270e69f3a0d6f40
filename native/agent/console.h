// console.h: the machine's console, for what the first process of a virtual machine has to say when its host may not
// hear it otherwise.
// Knows: /dev/console. Threads: any.
#pragma once

#include <string_view>

namespace sluicebox::agent {

// One line. Never waits: what the console does not take is lost.
void tell(std::string_view what);

}  // namespace sluicebox::agent
