// Run by the build: prints the filter of seccomp_list.h as values for seccomp.cc. libseccomp is needed here only.
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <vector>

#include "walls/seccomp_list.h"

using namespace sluicebox::walls;

namespace {

// As SCMP_A0 and its like, which C++ does not have.
scmp_arg_cmp masked(unsigned argument, scmp_datum_t mask, scmp_datum_t value) {
  return {argument, SCMP_CMP_MASKED_EQ, mask, value};
}

#if defined(__x86_64__)
constexpr unsigned kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr unsigned kArchitecture = AUDIT_ARCH_AARCH64;
#else
#error "no filter of system calls for this processor"
#endif

constexpr unsigned kNoSuchCall = SECCOMP_RET_ERRNO | ENOSYS;

// Before libseccomp's part: calls of another ABI (i386, x32) and calls past the list. x32 numbers begin at 2^30, so one
// comparison serves both.
const sock_filter kHead[] = {
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kArchitecture, 1, 0),
    BPF_STMT(BPF_RET | BPF_K, kNoSuchCall),
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
    BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, kHighestKnownCall, 0, 1),
    BPF_STMT(BPF_RET | BPF_K, kNoSuchCall),
};

// A name that libseccomp does not know would be left out in silence. One that this processor does not have is negative.
bool refuse(scmp_filter_ctx filter, const char* name, int error) {
  const int number = seccomp_syscall_resolve_name(name);
  if (number == __NR_SCMP_ERROR) {
    std::fprintf(stderr, "seccomp_list.h: libseccomp does not know %s\n", name);
    return false;
  }
  return number < 0 || seccomp_rule_add(filter, SCMP_ACT_ERRNO(static_cast<unsigned>(error)), number, 0) == 0;
}

bool add_rules(scmp_filter_ctx filter) {
  constexpr unsigned kRefuse = SCMP_ACT_ERRNO(EPERM);
  for (const char* name : kRefusedCalls)
    if (!refuse(filter, name, EPERM)) return false;
  for (const char* name : kMissingCalls)
    if (!refuse(filter, name, ENOSYS)) return false;
  // Arguments of type int: the kernel ignores the upper half, so the filter must too.
  for (const int family : kRefusedFamilies)
    if (seccomp_rule_add(filter, kRefuse, SCMP_SYS(socket), 1,
                         masked(0, 0xFFFFFFFF, static_cast<scmp_datum_t>(family))) != 0)
      return false;
  for (const unsigned request : kRefusedIoctls)
    if (seccomp_rule_add(filter, kRefuse, SCMP_SYS(ioctl), 1, masked(1, 0xFFFFFFFF, request)) != 0) return false;
  for (const unsigned long flag : kRefusedCloneFlags)
    if (seccomp_rule_add(filter, kRefuse, SCMP_SYS(clone), 1, masked(0, flag, flag)) != 0) return false;
  return true;
}

// libseccomp writes to a descriptor.
bool exported(scmp_filter_ctx filter, std::vector<sock_filter>& code) {
  const int file = ::memfd_create("filter", MFD_CLOEXEC);
  if (file < 0 || seccomp_export_bpf(filter, file) != 0) return false;
  const off_t size = ::lseek(file, 0, SEEK_END);
  code.resize(static_cast<std::size_t>(size) / sizeof(sock_filter));
  return ::pread(file, code.data(), static_cast<std::size_t>(size), 0) == size && ::close(file) == 0;
}

}  // namespace

int main() {
  scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
  // 2: a binary tree over the numbers of the calls.
  if (filter == nullptr || seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2) != 0) return 1;
  std::vector<sock_filter> code;
  if (!add_rules(filter) || !exported(filter, code)) return 1;
  seccomp_release(filter);
  for (const sock_filter& step : kHead) std::printf("{%u, %u, %u, %#x},\n", step.code, step.jt, step.jf, step.k);
  for (const sock_filter& step : code) std::printf("{%u, %u, %u, %#x},\n", step.code, step.jt, step.jf, step.k);
  return 0;
}
