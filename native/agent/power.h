// power.h: how a virtual machine ends: its data on disk, then off.
// Knows: processes, the root's mount. Does not know: sessions. First process only.
// Threads: one.
#pragma once

namespace sluicebox::agent {

// Ends every process, writes everything out, and switches the machine off.
[[noreturn]] void power_off();

}  // namespace sluicebox::agent
