// kvm.h: whether this host's processor runs a stock guest itself, at its own speed.
// Knows: /dev/kvm. Does not know: QEMU.
// Threads: any.
//
// That a machine can be made means nothing: where KVM itself runs in a guest, it may answer every question well and
// emulate each instruction. So a guest is run.
#pragma once

#include <chrono>
#include <string>

#include "base/result.h"

namespace sluicebox::box {

struct KvmVerdict {
  bool usable = false;
  std::string why;  // not: for people; empty when it is
};

// Found out once a process. Takes at most a tenth of a second.
const KvmVerdict& kvm_verdict();

// The last step of it by itself: a loop in 64-bit mode, on a processor of its own. kUnsupported when it did not come to
// its end in that time, or not as a processor would. `kvm`: /dev/kvm, open for both.
Status run_kvm_guest(int kvm, std::chrono::milliseconds budget);

}  // namespace sluicebox::box
