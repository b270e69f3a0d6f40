#include "box/kvm.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "base/unique_fd.h"

namespace sluicebox::box::test {

namespace {

bool has_vmx_or_svm() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string word; file >> word;)
    if (word == "vmx" || word == "svm") return true;
  return false;
}

}  // namespace

TEST_CASE("KVM is used only where a guest's instructions are the processor's: else the verdict says why") {
  const KvmVerdict& verdict = kvm_verdict();
  CAPTURE(verdict.why);
  CHECK(verdict.usable == verdict.why.empty());
  if (::access("/dev/kvm", R_OK | W_OK) != 0 || !has_vmx_or_svm()) CHECK_FALSE(verdict.usable);
  CHECK(&kvm_verdict() == &verdict);
}

TEST_CASE("a guest under KVM that does not end is interrupted, and this thread's signals are as they were") {
  const UniqueFd kvm(::open("/dev/kvm", O_RDWR | O_CLOEXEC));
  if (!kvm.valid()) {
    MESSAGE("this host has no /dev/kvm that this user may open: nothing to run a guest with");
    return;
  }
  sigset_t before;
  REQUIRE(::pthread_sigmask(SIG_SETMASK, nullptr, &before) == 0);
  const Status ran = run_kvm_guest(kvm.get(), std::chrono::milliseconds(50));
  // Where the processor can do it, it can; where it cannot, the loop of a million turns is far from its end by then.
  CHECK(ran.ok() == has_vmx_or_svm());
  // It is the right one: given time it comes to its end.
  CHECK(run_kvm_guest(kvm.get(), std::chrono::seconds(100)).ok());
  sigset_t after;
  REQUIRE(::pthread_sigmask(SIG_SETMASK, nullptr, &after) == 0);
  for (int signal = 1; signal < SIGRTMAX; ++signal) CHECK(sigismember(&before, signal) == sigismember(&after, signal));
  sigset_t pending;
  REQUIRE(::sigpending(&pending) == 0);
  CHECK(sigismember(&pending, SIGRTMAX) == 0);
}

}  // namespace sluicebox::box::test
