#include "box/kvm.h"

#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <ctime>
#include <fstream>
#include <sstream>

#include "base/unique_fd.h"

namespace sluicebox::box {

namespace {

constexpr const char* kKvmDevice = "/dev/kvm";

Error unfit(const std::string& why) { return {ErrorCode::kUnsupported, why}; }

#if defined(__x86_64__)

constexpr int kApiVersion = 12;
// KVM_SET_SIGNAL_MASK as a C compiler has it: in C++ the structure's empty end takes room.
constexpr unsigned long kSetSignalMask = _IOC(_IOC_WRITE, KVMIO, 0x8b, sizeof(std::uint32_t));
constexpr std::chrono::milliseconds kBudget{50};

// ---------- the guest ----------
constexpr std::size_t kGuestMemory = std::size_t{2} << 20;
constexpr std::uint64_t kTables = 0x1000;  // three pages, one for each level
constexpr std::uint64_t kProgram = 0x4000;
constexpr std::uint8_t kPort = 0x10;
// mov ecx, 2^20; again: dec ecx; jnz again; out kPort, al; hlt
constexpr std::array<std::uint8_t, 12> kCode = {0xb9, 0x00, 0x00, 0x10, 0x00,  0xff,
                                                0xc9, 0x75, 0xfc, 0xe6, kPort, 0xf4};

class Mapping {
 public:
  Mapping(void* address, std::size_t size) : address_(address), size_(size) {}
  ~Mapping() {
    if (valid()) ::munmap(address_, size_);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  bool valid() const { return address_ != MAP_FAILED; }
  std::byte* bytes() const { return static_cast<std::byte*>(address_); }

 private:
  void* const address_;
  const std::size_t size_;
};

// A timer that ends KVM_RUN, and nothing else: its signal stays blocked in this thread, and KVM alone looks at it.
class Alarm {
 public:
  explicit Alarm(int processor) : signal_(SIGRTMAX) {
    sigset_t only;
    sigemptyset(&only);
    sigaddset(&only, signal_);
    ::pthread_sigmask(SIG_BLOCK, &only, &before_);
    // A length and as many bytes: the kernel's set of signals has 64 bits, whatever the library's has. None is blocked.
    alignas(std::uint32_t) std::array<std::byte, sizeof(std::uint32_t) + sizeof(std::uint64_t)> mask{};
    const std::uint32_t length = sizeof(std::uint64_t);
    std::memcpy(mask.data(), &length, sizeof length);
    ready_ = ::ioctl(processor, kSetSignalMask, mask.data()) == 0;
  }
  ~Alarm() {
    if (armed_) ::timer_delete(timer_);
    sigset_t only;
    sigemptyset(&only);
    sigaddset(&only, signal_);
    const timespec now{};
    while (::sigtimedwait(&only, nullptr, &now) == signal_) {
    }
    ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  Alarm(const Alarm&) = delete;
  Alarm& operator=(const Alarm&) = delete;

  bool ring_after(std::chrono::milliseconds time) {
    sigevent event{};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = signal_;
    event._sigev_un._tid = static_cast<pid_t>(::syscall(SYS_gettid));
    if (!ready_ || ::timer_create(CLOCK_MONOTONIC, &event, &timer_) != 0) return false;
    armed_ = true;
    const auto whole = std::chrono::floor<std::chrono::seconds>(time);
    const std::chrono::nanoseconds rest = time - whole;
    const itimerspec once{.it_interval = {}, .it_value = {.tv_sec = whole.count(), .tv_nsec = rest.count()}};
    return ::timer_settime(timer_, 0, &once, nullptr) == 0;
  }

 private:
  const int signal_;
  sigset_t before_{};
  timer_t timer_{};
  bool ready_ = false;
  bool armed_ = false;
};

// Its first two MiB as they lie there, in one large page.
void lay_out(std::byte* memory) {
  constexpr std::uint64_t kPresentWritable = 3;
  constexpr std::uint64_t kLargePage = 0x80;
  const std::uint64_t entries[] = {(kTables + 0x1000) | kPresentWritable, (kTables + 0x2000) | kPresentWritable,
                                   kLargePage | kPresentWritable};
  for (std::size_t level = 0; level < std::size(entries); ++level)
    std::memcpy(memory + kTables + level * 0x1000, &entries[level], sizeof entries[level]);
  std::memcpy(memory + kProgram, kCode.data(), kCode.size());
}

Status enter_long_mode(int processor) {
  kvm_sregs special{};
  if (::ioctl(processor, KVM_GET_SREGS, &special) != 0) return unfit("KVM does not tell a processor's registers");
  special.cr0 = 0x80000011;  // paging, protection
  special.cr3 = kTables;
  special.cr4 = 0x20;    // large addresses in tables
  special.efer = 0x500;  // long mode, on and active
  const auto flat = [](std::uint8_t type, std::uint8_t is_code) {
    kvm_segment segment{};
    segment.limit = 0xffffffff;
    segment.selector = is_code != 0 ? 0x8 : 0x10;
    segment.type = type;
    segment.present = 1;
    segment.s = 1;
    segment.g = 1;
    segment.l = is_code;
    segment.db = is_code == 0;
    return segment;
  };
  special.cs = flat(0xb, 1);
  special.ds = special.es = special.fs = special.gs = special.ss = flat(0x3, 0);
  if (::ioctl(processor, KVM_SET_SREGS, &special) != 0) return unfit("KVM does not take 64-bit mode");
  kvm_regs registers{};
  registers.rip = kProgram;
  registers.rflags = 2;
  if (::ioctl(processor, KVM_SET_REGS, &registers) != 0) return unfit("KVM does not take a processor's registers");
  return ok_status();
}

bool has_processor_flag() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("flags")) continue;
    std::istringstream words(line);
    for (std::string word; words >> word;)
      if (word == "vmx" || word == "svm") return true;
    return false;
  }
  return false;
}

bool has_module() { return ::access("/sys/module/kvm_intel", F_OK) == 0 || ::access("/sys/module/kvm_amd", F_OK) == 0; }

Status look() {
  const UniqueFd kvm(::open(kKvmDevice, O_RDWR | O_CLOEXEC));
  if (!kvm.valid() && errno == ENOENT) return unfit("this host has no /dev/kvm");
  if (!kvm.valid() && (errno == EACCES || errno == EPERM)) {
    return unfit("this user may not open /dev/kvm: join the group that it belongs to (often kvm)");
  }
  if (!kvm.valid()) return unfit(std::string("/dev/kvm cannot be opened: ") + std::strerror(errno));
  if (::ioctl(kvm.get(), KVM_GET_API_VERSION, 0) != kApiVersion) return unfit("/dev/kvm speaks another version");
  if (!has_processor_flag()) return unfit("this host's processor has no virtualization of its own (vmx or svm)");
  if (!has_module()) return unfit("neither kvm_intel nor kvm_amd is loaded");
  return run_kvm_guest(kvm.get(), kBudget);
}

#else

Status look() { return unfit("on this architecture it is not used"); }

#endif

}  // namespace

#if defined(__x86_64__)

Status run_kvm_guest(int kvm, std::chrono::milliseconds budget) {
  const UniqueFd machine(::ioctl(kvm, KVM_CREATE_VM, 0));
  if (!machine.valid()) return unfit("KVM makes no machine");
  const Mapping memory(::mmap(nullptr, kGuestMemory, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
                       kGuestMemory);
  if (!memory.valid()) return os_error(errno, "cannot make a guest's memory");
  lay_out(memory.bytes());
  const kvm_userspace_memory_region region{.slot = 0,
                                           .flags = 0,
                                           .guest_phys_addr = 0,
                                           .memory_size = kGuestMemory,
                                           .userspace_addr = reinterpret_cast<std::uintptr_t>(memory.bytes())};
  if (::ioctl(machine.get(), KVM_SET_USER_MEMORY_REGION, &region) != 0) return unfit("KVM takes no memory");
  const UniqueFd processor(::ioctl(machine.get(), KVM_CREATE_VCPU, 0));
  const int shared = ::ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
  if (!processor.valid() || shared < static_cast<int>(sizeof(kvm_run))) return unfit("KVM makes no processor");
  const auto size = static_cast<std::size_t>(shared);
  const Mapping state(::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, processor.get(), 0), size);
  if (!state.valid()) return unfit("KVM does not show a processor's state");
  TRY(enter_long_mode(processor.get()));
  Alarm alarm(processor.get());
  if (!alarm.ring_after(budget)) return unfit("a guest under KVM cannot be interrupted");
  const int stopped = ::ioctl(processor.get(), KVM_RUN, 0);
  if (stopped != 0 && errno == EINTR)
    return unfit("a guest's instructions are emulated one by one: this host is a guest itself");
  const auto* run = reinterpret_cast<const kvm_run*>(state.bytes());
  if (stopped != 0 || run->exit_reason != KVM_EXIT_IO || run->io.port != kPort)
    return unfit("a guest under KVM does not do what it is told");
  return ok_status();
}

#else

Status run_kvm_guest(int, std::chrono::milliseconds) { return unfit("on this architecture it is not used"); }

#endif

const KvmVerdict& kvm_verdict() {
  static const KvmVerdict verdict = [] {
    Status looked = look();
    // Something else may have had the processor for so long.
    if (!looked.ok()) looked = look();
    return KvmVerdict{.usable = looked.ok(), .why = looked.ok() ? std::string() : looked.error().message};
  }();
  return verdict;
}

}  // namespace sluicebox::box
