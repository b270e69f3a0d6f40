#include "walls/caps.h"

#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#include "walls/failure.h"

namespace sluicebox::walls {

namespace {

constexpr int kKept[] = {CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID,
                         CAP_KILL,  CAP_SETGID,       CAP_SETUID, CAP_NET_BIND_SERVICE};

constexpr std::uint32_t kept_bits() {
  std::uint32_t bits = 0;
  for (const int capability : kKept) bits |= 1U << capability;
  return bits;
}

}  // namespace

Status keep_few_capabilities() {
  for (int capability = 0; capability < 64; ++capability) {
    if (capability < 32 && ((kept_bits() >> capability) & 1U) != 0) continue;
    if (::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0) continue;
    if (errno == EINVAL) break;  // past the kernel's last
    return failure(errno, "drop capabilities");
  }
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  data[0].permitted = data[0].effective = kept_bits();
  // capset has no wrapper in the C library. Emptying the inheritable set empties the ambient one too.
  if (::syscall(SYS_capset, &header, data) != 0) return failure(errno, "drop capabilities");
  return ok_status();
}

}  // namespace sluicebox::walls
