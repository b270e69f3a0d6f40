// test_machine.h: a virtual machine of the tests: QEMU with the kernel and initrd that box/ builds, the agent in it.
// Knows: QEMU's command line, the agent's protocol. Every wait has a deadline; a missed one fails the test and shows
// what the machine's console said.
// Threads: one.
#pragma once

#include <doctest/doctest.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "box/elf.h"
#include "box/initrd.h"
#include "box/kernel.h"
#include "box/sealed_memory.h"
#include "test/agent/agent_driver.h"
#include "test/image/temp_dir.h"

namespace sluicebox::box::test {

using namespace sluicebox::agent::test;  // NOLINT(google-build-using-namespace): the same agent, seen from its host

inline std::string agent_directory() { return std::filesystem::path(SLUICEBOX_AGENT).parent_path(); }

// Of a program; empty if there is none. sbin holds mkfs.ext4 and is not on every user's PATH.
inline std::string program(const std::string& name) {
  for (const char* place : {"/usr/bin/", "/bin/", "/usr/sbin/", "/sbin/", "/usr/local/bin/"}) {
    if (::access((place + name).c_str(), X_OK) == 0) return place + name;
  }
  return {};
}

// Exit code; -1 for any other end.
inline int wait_for_exit(pid_t pid, std::chrono::seconds most) {
  const auto deadline = Clock::now() + most;
  int status = -1;
  while (::waitpid(pid, &status, WNOHANG) == 0) {
    if (Clock::now() > deadline) {
      ::kill(pid, SIGKILL);
      ::waitpid(pid, &status, 0);
      return -1;
    }
    ::usleep(2000);
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
inline pid_t start_program(std::vector<std::string> words, const std::string& output) {
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_addopen(&actions, 1, output.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  ::posix_spawn_file_actions_adddup2(&actions, 1, 2);
  char* env[] = {nullptr};
  pid_t pid = -1;
  REQUIRE(::posix_spawn(&pid, argv[0], &actions, nullptr, argv.data(), env) == 0);
  ::posix_spawn_file_actions_destroy(&actions);
  return pid;
}
inline std::string contents(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// What these tests need and this host lacks, in words; empty: nothing.
inline std::string missing_capability() {
  if (program("qemu-system-x86_64").empty()) return "qemu-system-x86_64";
  if (program("mkfs.ext4").empty()) return "mkfs.ext4";
  const auto busybox = read_whole(program("busybox"), std::size_t{64} << 20, "busybox");
  if (!busybox.ok()) return "busybox";
  const auto segments = elf_segments(busybox.value());
  if (!segments.ok()) return "busybox";
  for (const ElfSegment& segment : segments.value()) {
    if (segment.type == 3) return "a static busybox";  // PT_INTERP: this one needs a dynamic linker
  }
  const auto kernel = find_kernel(agent_directory());
  return kernel.ok() ? "" : kernel.error().message;
}

struct MachineOptions {
  std::string disk = {};  // a raw image; empty: none
  bool disk_readonly = false;
  std::string command_line = {};  // after the usual one
};

class TestMachine {
 public:
  explicit TestMachine(const MachineOptions& options) {
    const GuestKernel kernel = find_kernel(agent_directory()).value();
    const UniqueFd agent(::open(SLUICEBOX_AGENT, O_RDONLY | O_CLOEXEC));
    UniqueFd image = for_qemu(unpack_kernel(kernel).value());
    UniqueFd initrd = for_qemu(build_initrd(kernel, agent.get()).value());
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
    host_.emplace(UniqueFd(ends[0]), FrameLink::Kind::kStream);
    const UniqueFd theirs = for_qemu(UniqueFd(ends[1]));
    const auto path = [](const UniqueFd& fd) { return "/proc/self/fd/" + std::to_string(fd.get()); };
    std::vector<std::string> words = {
        program("qemu-system-x86_64"),
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-M",
        "q35,accel=tcg,usb=off,sata=off,smbus=off,vmport=off,hpet=off,graphics=off",
        "-m",
        "256",
        "-smp",
        "1",
        "-kernel",
        path(image),
        "-initrd",
        path(initrd),
        "-append",
        "console=ttyS0 quiet loglevel=3 panic=-1 reboot=t random.trust_cpu=on tsc=reliable no_timer_check "
        "cryptomgr.notests nokaslr mitigations=off " +
            options.command_line,
        "-serial",
        "file:" + console(),
        "-chardev",
        "socket,id=ag,fd=" + std::to_string(theirs.get()),
        "-device",
        "virtio-serial-pci",
        "-device",
        "virtserialport,chardev=ag,name=slu.agent",
        "-object",
        "rng-random,id=r0,filename=/dev/urandom",
        "-device",
        "virtio-rng-pci,rng=r0",
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"};
    if (!options.disk.empty()) {
      const std::string readonly = options.disk_readonly ? ",read-only=on" : "";
      words.insert(words.end(),
                   {"-blockdev", "driver=raw,node-name=disk,file.driver=file,file.filename=" + options.disk + readonly,
                    "-device", "virtio-blk-pci,drive=disk,serial=root"});
    }
    started_ = Clock::now();
    pid_ = start_program(std::move(words), folder_.file("qemu.log"));
  }
  TestMachine(const TestMachine&) = delete;
  TestMachine& operator=(const TestMachine&) = delete;
  ~TestMachine() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }

  Host& host() { return *host_; }
  pid_t pid() const { return pid_; }
  std::string log() const { return contents(console()) + contents(folder_.file("qemu.log")); }
  std::chrono::milliseconds since_start() const {
    return std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - started_);
  }

  // Greeted by both. Emulated, on a loaded machine: the only long wait.
  void greet() {
    if (!wait_ready(host_->fd(), POLLIN, Clock::now() + std::chrono::seconds(600))) FAIL("no agent came: " << log());
    INFO("the machine's console: ", log());
    CHECK(decode_hello(host_->expect(Type::kHello).payload).value().version == kVersion);
    host_->greet();
  }
  void send(const Machine& machine) { host_->send(Type::kMachine, 0, 99, encode(machine)); }
  // The answer, whichever it is.
  Frame told(const Machine& machine) {
    send(machine);
    Frame answer = host_->next(0);
    CHECK(answer.header.request == 99);
    return answer;
  }
  void stand(const Machine& machine) {
    const Frame answer = told(machine);
    if (answer.header.type == Type::kMachineReady) return;
    REQUIRE(answer.header.type == Type::kMachineFailed);
    const MachineFailed failed = decode_machine_failed(answer.payload).value();
    FAIL("cannot " << failed.step << ": errno " << failed.os_error << "\n" << log());
  }
  void shut_down(std::uint64_t grace_ms = 1000) {
    host_->send(Type::kShutdown, 0, 0, encode(Stop{.grace_ms = grace_ms}));
  }
  // QEMU's exit code.
  int ended() {
    const int code = wait_for_exit(std::exchange(pid_, -1), std::chrono::seconds(300));
    if (code != 0) MESSAGE("the machine's console: ", log());
    return code;
  }

 private:
  // Descriptors that QEMU is to have do not close on exec.
  static UniqueFd for_qemu(UniqueFd fd) {
    REQUIRE(::fcntl(fd.get(), F_SETFD, 0) == 0);
    return fd;
  }
  std::string console() const { return folder_.file("console.log"); }

  image::testing::TempDir folder_;
  std::optional<Host> host_;
  Clock::time_point started_;
  pid_t pid_ = -1;
};

inline Machine machine_with(std::string serial = "root") {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  Machine machine;
  machine.hostname = "testbox";
  machine.machine_id = "0123456789abcdef0123456789abcdef";
  machine.realtime_ns = std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
  machine.entropy.assign(32, std::byte{0x5a});
  machine.root_serial = std::move(serial);
  return machine;
}

// A root file system with busybox, a user, and nothing else in it.
inline std::string make_tree(const image::testing::TempDir& folder) {
  std::string tree = folder.file("tree");
  std::filesystem::create_directories(tree + "/bin");
  std::filesystem::create_directories(tree + "/etc");
  std::filesystem::copy_file(program("busybox"), tree + "/bin/busybox");
  for (const char* name : {"sh", "id", "cat", "date", "dd", "hostname", "mkdir", "sleep", "stat", "tty"})
    std::filesystem::create_symlink("busybox", tree + "/bin/" + name);
  std::ofstream(tree + "/etc/passwd") << "root:x:0:0::/root:/bin/sh\nworker:x:1234:1234::/:/bin/sh\n";
  std::ofstream(tree + "/etc/hosts") << "127.0.0.1 localhost\n127.0.1.1 older\n";
  return tree;
}
inline std::string make_image(const image::testing::TempDir& folder, std::vector<std::string> words, std::string disk) {
  const std::string log = folder.file("mkfs.log");
  const int code = wait_for_exit(start_program(std::move(words), log), std::chrono::seconds(300));
  REQUIRE_MESSAGE(code == 0, contents(log));
  return disk;
}
inline std::string make_ext4(const image::testing::TempDir& folder) {
  const std::string disk = folder.file("disk.ext4");
  return make_image(
      folder,
      {program("mkfs.ext4"), "-q", "-F", "-m0", "-E", "root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1,nodiscard",
       "-d", make_tree(folder), disk, "48M"},
      disk);
}
inline std::string make_erofs(const image::testing::TempDir& folder) {
  const std::string disk = folder.file("disk.erofs");
  return make_image(folder, {program("mkfs.erofs"), "--quiet", "--all-root", disk, make_tree(folder)}, disk);
}

}  // namespace sluicebox::box::test
