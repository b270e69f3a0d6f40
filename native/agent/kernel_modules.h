// kernel_modules.h: the kernel's modules that the initrd carries.
// Knows: /modules. Threads: one.
#pragma once

namespace sluicebox::agent {

// Those that /modules/order names, a file's name a line, in that order. One that fails is told on the console: what
// needed it will fail too, and say so.
void load_modules();

}  // namespace sluicebox::agent
