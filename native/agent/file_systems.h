// file_systems.h: holds still what the machine writes to its disks, while somebody looks at them from outside.
// Knows: the mount table. Does not know: sessions. Threads: one.
#pragma once

namespace sluicebox::agent {

// Every file system on a disk that can be written: all that was written is on it, and who writes more waits. 0, or
// errno, with none of them frozen.
int freeze_file_systems();
void thaw_file_systems();

}  // namespace sluicebox::agent
