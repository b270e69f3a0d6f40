// seccomp_list.h: which system calls a box may not make. All else is allowed, up to the highest call that was known
// when the list was written: what came later nobody has looked at, and is ENOSYS. Knows: names of system calls. Used
// when building only.
#pragma once

#include <linux/sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

namespace sluicebox::walls {

// fchmodat2. The C library does without any later one.
inline constexpr unsigned kHighestKnownCall = 452;

// EPERM.
inline constexpr const char* kRefusedCalls[] = {
    // The kernel itself: modules, another kernel, programs in it, its log, counters, accounting.
    "acct",
    "bpf",
    "delete_module",
    "finit_module",
    "init_module",
    "kexec_file_load",
    "kexec_load",
    "lookup_dcookie",
    "perf_event_open",
    "reboot",
    "syslog",
    "swapon",
    "swapoff",
    "quotactl",
    "quotactl_fd",
    // Keys are not namespaced.
    "add_key",
    "keyctl",
    "request_key",
    // Clocks of the host.
    "adjtimex",
    "clock_adjtime",
    "clock_settime",
    "settimeofday",
    // Mounts and namespaces: the walls stay as they were built.
    "chroot",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_tree",
    "pivot_root",
    "setns",
    "umount",
    "umount2",
    "unshare",
    "name_to_handle_at",
    "open_by_handle_at",
    "fanotify_init",
    // Other processes' memory and descriptors.
    "kcmp",
    "pidfd_getfd",
    "process_madvise",
    "process_vm_readv",
    "process_vm_writev",
    "ptrace",
    // Wide surfaces with a history, which programs do without.
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "memfd_secret",
    "userfaultfd",
    // Hardware and memory placement.
    "ioperm",
    "iopl",
    "mbind",
    "migrate_pages",
    "move_pages",
    "set_mempolicy",
    "set_mempolicy_home_node",
    "personality",
    "vhangup",
    // Obsolete.
    "_sysctl",
    "afs_syscall",
    "create_module",
    "get_kernel_syms",
    "getpmsg",
    "modify_ldt",
    "nfsservctl",
    "putpmsg",
    "query_module",
    "security",
    "sysfs",
    "tuxcall",
    "uselib",
    "ustat",
    "vserver",
};

// ENOSYS: its flags lie in memory, where no filter sees them; the C library then uses clone.
inline constexpr const char* kMissingCalls[] = {"clone3"};

// socket() of these families is EPERM. AF_VSOCK is not namespaced and dials the hypervisor.
inline constexpr int kRefusedFamilies[] = {AF_VSOCK, AF_ALG, AF_PACKET};

// ioctl() with these is EPERM: they type into the terminal that a caller sits at.
inline constexpr unsigned kRefusedIoctls[] = {TIOCSTI, TIOCLINUX};

// clone() with any of these is EPERM.
inline constexpr unsigned long kRefusedCloneFlags[] = {CLONE_NEWUSER, CLONE_NEWNS,  CLONE_NEWPID,   CLONE_NEWNET,
                                                       CLONE_NEWIPC,  CLONE_NEWUTS, CLONE_NEWCGROUP};

}  // namespace sluicebox::walls
