// Escapes, each tried in a box; the proof is what the kernel answers.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/ipc.h>
#include <sys/mount.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "test/keeper/box_fixture.h"

using namespace sluicebox;
using namespace sluicebox::test;

namespace {

// One box for each test that only looks.
struct Launched {
  Home home;
  BoxUnderTest box{home.make_box()};
  Launched() {
    const Answer& answer = box.launch();
    INFO(answer.failed.message << " " << answer.failed.path << " " << answer.failed.hint);
    REQUIRE(answer.launched);
  }
};

std::string field(const std::string& status, const std::string& name) {
  const std::size_t at = status.find("\n" + name + ":");
  if (at == std::string::npos) return "none";
  const std::size_t from = status.find_first_not_of(" \t", at + name.size() + 2);
  return status.substr(from, status.find('\n', from) - from);
}

}  // namespace

TEST_CASE("S1 PID 1 inherits nothing but its link, and stands in the box's root") {
  UniqueFd leak(::open("/etc/passwd", O_RDONLY));  // without close-on-exec
  Launched with;
  CHECK(with.box.run({"/bin/sh", "-c", "ls /proc/self/fd"}) == "0\n1\n2\n3\n");  // 3: ls's own of /proc/self/fd
  std::set<std::string> held;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/" + std::to_string(with.box.pid1()) + "/fd")) {
    std::error_code ignored;
    held.insert(std::filesystem::read_symlink(entry.path(), ignored));
  }
  for (const std::string& target : held) {
    INFO(target);
    CHECK((target == "/dev/null" || target.starts_with("socket:")));
  }
  CHECK(with.box.sh("pwd; readlink /proc/1/cwd /proc/1/root") == "/\n/\n/\n");
}

TEST_CASE("S2 capabilities are the documented minimum, nothing is inheritable or ambient, no_new_privs is set") {
  Launched with;
  for (const std::string& status : {with.box.proc("status"), "\n" + with.box.sh("cat /proc/self/status")}) {
    // chown dac_override fowner fsetid kill setgid setuid net_bind_service
    CHECK(field(status, "CapPrm") == "00000000000004fb");
    CHECK(field(status, "CapEff") == "00000000000004fb");
    CHECK(field(status, "CapBnd") == "00000000000004fb");
    CHECK(field(status, "CapInh") == "0000000000000000");
    CHECK(field(status, "CapAmb") == "0000000000000000");
    CHECK(field(status, "NoNewPrivs") == "1");
    CHECK(field(status, "Seccomp") == "2");
  }
}

TEST_CASE("S3 the filter refuses what no box needs, newer calls and other ABIs") {
  Launched with;
  struct Try {
    long number;
    std::vector<std::string> arguments;
    int error;
  };
  const std::string newuser = std::to_string(CLONE_NEWUSER | 17);
  const Try tries[] = {
      {SYS_mount, {"'none", "'/mnt", "'tmpfs", "0", "0"}, EPERM},
      {SYS_umount2, {"'/proc", "2"}, EPERM},
      {SYS_pivot_root, {"'.", "'."}, EPERM},
      {SYS_chroot, {"'/tmp"}, EPERM},
      {SYS_fsopen, {"'tmpfs", "0"}, EPERM},
      {SYS_open_tree, {"-100", "'/", "1"}, EPERM},
      {SYS_mount_setattr, {"-1", "'", "0", "0", "0"}, EPERM},
      {SYS_unshare, {std::to_string(CLONE_NEWUSER)}, EPERM},
      {SYS_setns, {"0", "0"}, EPERM},
      {SYS_clone, {newuser, "0", "0", "0", "0"}, EPERM},
      {SYS_clone, {std::to_string(CLONE_NEWNET | 17), "0", "0", "0", "0"}, EPERM},
      {SYS_clone3, {"0", "0"}, ENOSYS},
      {SYS_init_module, {"0", "0", "'"}, EPERM},
      {SYS_finit_module, {"0", "'", "0"}, EPERM},
      {SYS_kexec_load, {"0", "0", "0", "0"}, EPERM},
      {SYS_bpf, {"0", "0", "0"}, EPERM},
      {SYS_perf_event_open, {"0", "0", "-1", "-1", "0"}, EPERM},
      {SYS_add_key, {"'user", "'a", "'b", "1", "-3"}, EPERM},
      {SYS_keyctl, {"0", "-3", "0"}, EPERM},
      {SYS_open_by_handle_at, {"0", "0", "0"}, EPERM},
      {SYS_name_to_handle_at, {"-100", "'/", "0", "0", "0"}, EPERM},
      {SYS_userfaultfd, {"0"}, EPERM},
      {SYS_io_uring_setup, {"1", "0"}, EPERM},
      {SYS_ptrace, {"16", "1", "0", "0"}, EPERM},
      {SYS_process_vm_readv, {"1", "0", "0", "0", "0", "0"}, EPERM},
      {SYS_syslog, {"3", "0", "0"}, EPERM},
      {SYS_reboot, {"0xfee1dead", "672274793", "0", "0"}, EPERM},
      {SYS_settimeofday, {"0", "0"}, EPERM},
      {SYS_socket, {std::to_string(AF_VSOCK), "1", "0"}, EPERM},
      {SYS_socket, {std::to_string(AF_ALG), "5", "0"}, EPERM},
      {SYS_socket, {std::to_string(AF_PACKET), "3", "0"}, EPERM},
      // The upper half of an int is nobody's business: it must not get past the filter.
      {SYS_socket, {std::to_string(AF_VSOCK | (1L << 32)), "1", "0"}, EPERM},
      {SYS_ioctl, {"0", "0x5412", "'a"}, EPERM},
      {SYS_ioctl, {"0", "0x100005412", "'a"}, EPERM},
      {SYS_ioctl, {"0", "0x541c", "'a"}, EPERM},
      {453, {}, ENOSYS},
      {467, {}, ENOSYS},
      {100000, {}, ENOSYS},
#if defined(__x86_64__)
      {0x40000000 + 39, {}, ENOSYS},  // x32's getpid
#endif
  };
  for (const Try& one : tries) {
    const Call made = with.box.call(one.number, one.arguments);
    INFO("call " << one.number << " gave " << made.result << ", errno " << made.error);
    CHECK(made.result == -1);
    CHECK(made.error == one.error);
  }
  CHECK(with.box.call(SYS_getpid).result > 1);
  CHECK(with.box.call(SYS_socket, {std::to_string(AF_UNIX), "1", "0"}).result >= 0);
  // i386's door: its getpid is ENOSYS.
  CHECK(with.box.ask("f") == "0");
}

TEST_CASE("S4 root of the box is an unprivileged user outside, and so are its groups") {
  Launched with;
  std::istringstream uid(field(with.box.proc("status"), "Uid"));
  std::istringstream gid(field(with.box.proc("status"), "Gid"));
  unsigned outside = 0;
  unsigned group = 0;
  uid >> outside;
  gid >> group;
  CHECK(outside != 0);
  CHECK(field(with.box.proc("status"), "Groups") == (as_root() ? "" : field(with.box.proc("status"), "Groups")));
  if (as_root()) {
    CHECK(outside == with.box.answer().ok.first_uid);
    CHECK(group == with.box.answer().ok.first_uid);
    CHECK(outside >= 0x10000000);
    CHECK(with.box.sh("echo $(cat /proc/self/uid_map)") == "0 " + std::to_string(outside) + " 65536\n");
  } else {
    CHECK(outside == ::geteuid());
    CHECK(with.box.answer().ok.first_uid == 0);
    CHECK(with.box.sh("cat /proc/self/setgroups") == "deny\n");
  }
}

TEST_CASE("S5 the box sees its own processes only") {
  Launched with;
  CHECK(with.box.sh("for p in /proc/[0-9]*; do echo ${p#/proc/}; done | sort -n | head -1; echo $$ | grep -c .") ==
        "1\n1\n");
  const std::string host = std::to_string(::getpid());
  CHECK(with.box.sh("set -- /proc/[0-9]*; echo $#") == "2\n");
  CHECK(with.box.sh("readlink /proc/self/ns/pid") !=
        std::filesystem::read_symlink("/proc/self/ns/pid").string() + "\n");
}

TEST_CASE("S6 parts of /proc that tell of the host or change it are masked or read-only, /sys is not there") {
  Launched with;
  CHECK(with.box.sh("ls -A /sys") == "");
  for (const char* name : {"kcore", "keys", "key-users", "kallsyms", "kmsg", "sysrq-trigger", "timer_list",
                           "sched_debug", "latency_stats", "kpagecount"}) {
    INFO(name);
    if (!exists(std::string("/proc/") + name)) continue;
    CHECK(with.box.sh(std::string("cat /proc/") + name) == "");
    CHECK(with.box.sh(std::string("test -c /proc/") + name) == "");
  }
  for (const char* name : {"acpi", "scsi", "asound"}) {
    if (!exists(std::string("/proc/") + name)) continue;
    CHECK(with.box.sh(std::string("ls -A /proc/") + name) == "");
  }
  for (const char* name : {"sys/kernel/core_pattern", "sys/kernel/modprobe", "sys/vm/overcommit_memory",
                           "sys/net/ipv4/ip_forward", "sys/kernel/hostname", "sys/kernel/shmmax"}) {
    if (!exists(std::string("/proc/") + name)) continue;
    INFO(name);
    CHECK(with.box.sh(std::string("echo 1 > /proc/") + name + " && echo written", -1).find("written") ==
          std::string::npos);
  }
  const std::string mounts = with.box.sh("cat /proc/self/mountinfo");
  for (const char* part : {" /proc/sys ro,", " /proc/irq ro,", " /proc/bus ro,", " /proc/fs ro,"}) {
    const std::string path(part + 1, std::strchr(part + 1, ' '));
    if (exists(path)) CHECK_MESSAGE(mounts.find(part) != std::string::npos, mounts);
  }
}

TEST_CASE("S7 the host's root is gone: nothing of it is mounted, .. and other roots stay inside") {
  Launched with;
  const std::string mounts = with.box.sh("cat /proc/self/mountinfo");
  CHECK(mounts.find("/sys/fs/cgroup") == std::string::npos);
  CHECK(mounts.find(" /old") == std::string::npos);
  CHECK(with.box.sh("cd /; cd ../../..; pwd; ls -d /../home") == "/\n/../home\n");
  CHECK(with.box.sh("ls /proc/1/root/") == with.box.sh("ls /"));
  CHECK(with.box.sh("ls -A /home /tmp /mnt /run") == "/home:\n\n/mnt:\n\n/run:\n\n/tmp:\n");
  CHECK_FALSE(with.box.sh("ls /", 0).find("old_root") != std::string::npos);
}

TEST_CASE("S8 S10 every mount of the host is private, read-only, nosuid and nodev, below as well") {
  Launched with;
  std::istringstream mounts(with.box.sh("cat /proc/self/mountinfo"));
  int host_mounts = 0;
  for (std::string line; std::getline(mounts, line);) {
    INFO(line);
    CHECK(line.find(" shared:") == std::string::npos);
    CHECK(line.find(" master:") == std::string::npos);
    CHECK(line.find("nosuid") != std::string::npos);
    std::istringstream words(line);
    std::string id, parent, device, root, place, options;
    words >> id >> parent >> device >> root >> place >> options;
    const bool of_host = place.starts_with("/usr") || place.starts_with("/opt") || place.starts_with("/etc/");
    if (!of_host) continue;
    ++host_mounts;
    CHECK(options.starts_with("ro,"));
    CHECK(options.find("nodev") != std::string::npos);
  }
  CHECK(host_mounts >= 2);
  CHECK(with.box.sh("touch /usr/x", -1).find("Read-only") != std::string::npos);
  CHECK(with.box.sh("mount -o remount,rw /usr", -1) != "");
}

TEST_CASE("S11 /dev holds the documented names only, and no node can be made") {
  Launched with;
  CHECK(with.box.sh("cd /dev; LC_ALL=C ls -A | tr '\\n' ' '") ==
        "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero ");
  CHECK(with.box.sh("ls -A /dev/pts /dev/shm") == "/dev/pts:\nptmx\n\n/dev/shm:\n");
  CHECK(with.box.sh("head -c4 /dev/zero | od -An -tx1; head -c8 /dev/urandom | wc -c; echo x > /dev/null") ==
        " 00 00 00 00\n8\n");
  CHECK(with.box.sh("echo x > /dev/full", 1).find("I/O error") != std::string::npos);
  CHECK(with.box.call(SYS_mknodat, {"-100", "'/tmp/n", std::to_string(S_IFCHR | 0600), "0x103"}).error != 0);
  CHECK(with.box.call(SYS_mknodat, {"-100", "'/tmp/b", std::to_string(S_IFBLK | 0600), "0xfe00"}).error != 0);
  CHECK(with.box.call(SYS_mknodat, {"-100", "'/tmp/f", std::to_string(S_IFIFO | 0600), "0"}).error == 0);
  CHECK(with.box.sh("test -p /tmp/f; exec 3<>/dev/ptmx; ls /dev/pts") == "0\nptmx\n");
}

TEST_CASE("S12 rootfs host shows programs and settings, no users, secrets, sockets or homes") {
  Launched with;
  for (const char* name : {"/etc/shadow", "/etc/gshadow", "/etc/ssh", "/etc/ssl/private", "/etc/sudoers",
                           "/etc/machine-id", "/etc/pip.conf", "/etc/npmrc", "/etc/gitconfig", "/etc/environment",
                           "/etc/fstab", "/var/lib", "/var/run", "/work", "/boot", "/srv", "/media"}) {
    INFO(name);
    CHECK(with.box.sh(std::string("test -e ") + name, 1) == "");
  }
  CHECK(with.box.sh("ls -A /root /home /run /tmp /var/tmp") != "");
  CHECK(with.box.sh("find /root /home /run /tmp /var/tmp -mindepth 1") == "");
  CHECK(with.box.sh("cut -d: -f1 /etc/passwd; cat /etc/resolv.conf") == "root\ndaemon\nnobody\n");
  CHECK(with.box.sh("hostname; cat /etc/hostname") == "under-test\nunder-test\n");
  CHECK(with.box.sh("stat -c '%a %u' /tmp /root /") == "1777 0\n700 0\n755 0\n");
}

TEST_CASE("S12 a home below a directory that is shown is not") {
  const std::string inside = as_root() ? "/opt/sluicebox-test-home" : "";
  if (inside.empty() || !std::filesystem::create_directory(inside)) return;
  const std::string directory = inside + "/box12";
  std::filesystem::create_directory(directory);
  std::ofstream(inside + "/secret") << "x";
  {
    BoxUnderTest box(directory);
    REQUIRE(box.launch().launched);
    CHECK(box.sh("ls -A " + inside) == "");
    box.stop();
  }
  std::filesystem::remove_all(inside);
}

TEST_CASE("S13 the host's abstract sockets, SysV objects and session keyring are not the box's") {
  const UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string name = "sluicebox-test-" + std::to_string(::getpid());
  std::memcpy(address.sun_path + 1, name.data(), name.size());
  REQUIRE(::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address),
                 static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size())) == 0);
  REQUIRE(::listen(listener.get(), 1) == 0);
  const int shared = ::shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0666);
  REQUIRE(shared >= 0);
  Launched with;
  CHECK(with.box.sh("grep -c sluicebox-test- /proc/net/unix", 1) == "0\n");
  CHECK(with.box.sh("tail -n +2 /proc/sysvipc/shm") == "");
  CHECK(with.box.sh("cat /proc/keys /proc/key-users") == "");
  ::shmctl(shared, IPC_RMID, nullptr);
}

TEST_CASE("S37 the network of a box is a loopback that is up, and nothing else") {
  Launched with;
  CHECK(with.box.sh("tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '") == "lo\n");
  CHECK(with.box.sh("tail -n +2 /proc/net/route") == "");
  CHECK(with.box.sh("command -v python3 >/dev/null || exit 0; python3 -c \"import socket; a=socket.socket(); "
                    "a.bind(('127.0.0.1',0)); a.listen(); socket.create_connection(a.getsockname(), 5)\"") == "");
}

TEST_CASE("S14 a program of the box can neither trace, read, signal nor overwrite PID 1") {
  Launched with;
  CHECK(with.box.sh("kill -KILL 1; kill -TERM 1; kill -SEGV 1; echo lives") == "lives\n");
  CHECK(with.box.sh("(echo x > /proc/1/exe) 2>&1", -1) != "");
  CHECK(with.box.call(SYS_ptrace, {"16", "1", "0", "0"}).error == EPERM);
}

TEST_CASE("S20 rlimits are the box's own") {
  Launched with;
  CHECK(with.box.sh("ulimit -c; ulimit -n") == "0\n1024\n");
  const std::string limits = with.box.proc("limits");
  CHECK(limits.find("Max core file size        0                    0") != std::string::npos);
  CHECK(limits.find("Max realtime priority     0                    0") != std::string::npos);
}

TEST_CASE("S21 the layer, /dev/shm in it, ends at its storage") {
  Launched with;
  CHECK(with.box.sh("dd if=/dev/zero of=/tmp/f bs=1M count=100 2>/dev/null", 1) == "");
  CHECK(with.box.sh("test $(stat -c %s /tmp/f) -le 67108864") == "");
  CHECK(with.box.sh("head -c 65536 /dev/zero > /dev/shm/f", 1).find("No space") != std::string::npos);
  CHECK(with.box.sh("rm /tmp/f; echo x > /dev/shm/f; cat /dev/shm/f") == "x\n");
  CHECK(with.box.sh("dd if=/dev/zero of=/dev/f bs=1M count=1 2>/dev/null", 1) == "");
}

TEST_CASE("S21 a file can be renamed from one directory to another") {
  Launched with;
  CHECK(with.box.sh("mkdir /tmp/a /tmp/b; echo x > /tmp/a/f; perl -e 'rename(\"/tmp/a/f\",\"/tmp/b/f\") or die $!'; "
                    "ln /tmp/b/f /home/g; cat /home/g") == "x\n");
}
