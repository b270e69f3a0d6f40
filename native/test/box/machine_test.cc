#include <cstdlib>

#include "test/box/test_machine.h"

namespace sluicebox::box::test {

namespace {

using image::testing::TempDir;

// Says what is missing, once a test.
bool possible(const char* also = "sh") {
  std::string missing = missing_capability();
  if (missing.empty() && program(also).empty()) missing = also;
  if (!missing.empty()) MESSAGE("skipped, this host lacks: ", missing);
  return missing.empty();
}

Spawn as_root(Spawn spawn) {
  spawn.user = {};
  return spawn;
}

// Of a script, without the last line's end.
std::string said(Host& host, std::uint32_t channel, std::string script) {
  Outcome outcome = run(host, channel, as_root(framed(shell(std::move(script)), false)));
  CHECK_MESSAGE(outcome.exited.code == 0, outcome.err);
  if (outcome.out.ends_with('\n')) outcome.out.pop_back();
  return outcome.out;
}

bool is_clean(const TempDir& folder, const std::string& disk) {
  const std::string log = folder.file("fsck.log");
  const int code = wait_for_exit(start_program({program("e2fsck"), "-fn", disk}, log), std::chrono::seconds(60));
  if (code != 0) MESSAGE(contents(log));
  return code == 0;
}

TEST_SUITE("machine") {
  TEST_CASE("boots, runs programs on its disk as a box does, and leaves the disk clean") {
    if (!possible()) return;
    const TempDir folder;
    const std::string disk = make_ext4(folder);
    TestMachine machine({.disk = disk});
    Host& host = machine.host();
    machine.greet();
    const auto greeted = machine.since_start();

    // It is no machine yet.
    const SpawnFailed early = failure(host, 1, as_root(shell("true")));
    CHECK(early.step == SpawnStep::kProcess);
    CHECK(early.os_error == ESHUTDOWN);

    Machine wanted = machine_with();
    wanted.processes = 4;
    machine.stand(wanted);
    const auto stood = machine.since_start();
    CHECK(said(host, 2, "echo hi") == "hi");
    MESSAGE("greeted after ", greeted.count(), " ms, stood after ", stood.count(), " ms, first output after ",
            machine.since_start().count(), " ms");

    // What it was told to be.
    CHECK(said(host, 3, "hostname; cat /etc/hostname /etc/machine-id") ==
          "testbox\ntestbox\n0123456789abcdef0123456789abcdef");
    CHECK(said(host, 4, "cat /etc/hosts") == "127.0.0.1 localhost\n127.0.1.1 testbox");
    CHECK(std::abs(std::stoll(said(host, 5, "date +%s")) - ::time(nullptr)) < 120);

    // What every root holds.
    CHECK(said(host, 6, "stat -f -c %T / /dev /dev/pts /dev/shm /run /proc /sys /sys/fs/cgroup") ==
          "ext2/ext3\ntmpfs\ndevpts\ntmpfs\ntmpfs\nproc\nsysfs\nUNKNOWN");
    CHECK(said(host, 7, "stat -c %a /tmp /var/tmp /dev/shm /root; cat /dev/fd/0 < /etc/hostname") ==
          "1777\n1777\n1777\n700\ntestbox");
    CHECK(said(host, 8, "cat /sys/class/net/lo/flags; test -e /init || echo gone") == "0x9\ngone");

    CHECK(said(host, 9, "ulimit -n; ulimit -Hn; busybox grep -c \"processes  *unlimited\" /proc/self/limits") ==
          "1024\n65536\n1");

    // Users, terminals, input.
    Spawn worker = framed(shell("id -u; id -g"), false);
    worker.user = {.kind = User::Kind::kName, .name = "worker", .gid = {}};
    CHECK(run(host, 10, worker).out == "1234\n1234\n");
    Spawn terminal = on_terminal(as_root(shell("tty; stat -c %F $(tty); read line; echo \"<$line>\"")), Stdio::kFramed);
    start(host, 11, terminal);
    started(host, 11);
    const std::string shown = read_until(host, 11, "special file");
    CHECK(shown.find("/dev/pts/0") != std::string::npos);
    feed(host, 11, "typed\n");
    read_until(host, 11, "<typed>");
    const std::string bytes = noise(3'000'000);
    CHECK(run(host, 12, as_root(framed(command({"cat"}))), bytes).out == bytes);

    // Four at once and no more. One process each: a shell's child would compete with the next one for the last place.
    for (std::uint32_t channel = 20; channel <= 24; ++channel) {
      start(host, channel, as_root(shell("trap '' TERM; exec 3>/open-$$; exec sleep 1000")));
      const Frame answer = host.next(channel);
      if (channel < 24) {
        CHECK(answer.header.type == Type::kSpawned);
        continue;
      }
      REQUIRE(answer.header.type == Type::kSpawnFailed);
      const SpawnFailed full = decode_spawn_failed(answer.payload).value();
      CHECK(full.step == SpawnStep::kProcess);
      CHECK(full.os_error == EAGAIN);
    }

    machine.shut_down(500);
    CHECK(exit_of(host, 20).signaled);
    CHECK(machine.ended() == 0);
    CHECK(is_clean(folder, disk));
  }

  TEST_CASE("a read-only disk gets a private layer, and a host that hangs up ends the machine") {
    if (!possible()) return;
    const TempDir folder;
    const std::string disk = make_ext4(folder);
    const std::string before = contents(disk);
    TestMachine machine({.disk = disk, .disk_readonly = true});
    machine.greet();
    Machine wanted = machine_with();
    wanted.root_readonly = true;
    wanted.layer_bytes = std::uint64_t{4} << 20;
    machine.stand(wanted);
    Host& host = machine.host();
    CHECK(said(host, 1, "stat -f -c %t /; echo new > /etc/passwd; cat /etc/passwd; mkdir /made; hostname") ==
          "794c7630\nnew\ntestbox");
    const Outcome full = run(host, 2, as_root(framed(shell("dd if=/dev/zero of=/big bs=1M count=8"), false)));
    CHECK(full.exited.code != 0);
    CHECK(full.err.find("No space left") != std::string::npos);
    start(host, 3, as_root(shell("sleep 1000")));
    started(host, 3);
    host.close();
    CHECK(machine.ended() == 0);
    CHECK(contents(disk) == before);
  }

  TEST_CASE("a root of erofs gets a private layer too") {
    if (!possible("mkfs.erofs")) return;
    const TempDir folder;
    TestMachine machine({.disk = make_erofs(folder), .disk_readonly = true});
    machine.greet();
    Machine wanted = machine_with();
    wanted.file_system = FileSystem::kErofs;
    wanted.root_readonly = true;
    machine.stand(wanted);
    CHECK(said(machine.host(), 1, "stat -f -c %t /; echo kept > /etc/new; cat /etc/new") == "794c7630\nkept");
    machine.shut_down(0);
    CHECK(machine.ended() == 0);
  }

  TEST_CASE("a machine that cannot be made says at which step, and stays up to be asked") {
    if (!possible()) return;
    TestMachine machine({});
    machine.greet();
    const Frame answer = machine.told(machine_with("elsewhere"));
    REQUIRE(answer.header.type == Type::kMachineFailed);
    const MachineFailed failed = decode_machine_failed(answer.payload).value();
    CHECK(failed.step == "find the disk of the root file system");
    CHECK(failed.os_error == ENODEV);
    machine.host().ping();
    CHECK(failure(machine.host(), 1, as_root(command({"/init"}))).os_error == ESHUTDOWN);
    // By way of the console, which is slower than the answer.
    CHECK(eventually([&] {
      return machine.log().find("sluicebox: cannot find the disk of the root file system") != std::string::npos;
    }));
    machine.shut_down(0);
    CHECK(machine.ended() == 0);
  }

  TEST_CASE("without a disk the initrd stays root, and a second machine is one too many") {
    if (!possible()) return;
    TestMachine machine({});
    machine.greet();
    machine.stand(machine_with(""));
    // The only program there; without a keeper's link it ends at once.
    const Outcome outcome = run(machine.host(), 1, as_root(framed(command({"/init"}), false)));
    CHECK(outcome.exited.code == 1);
    machine.send(machine_with(""));
    CHECK(machine.host().hung_up());
    CHECK(machine.ended() == 0);
  }
}

}  // namespace

}  // namespace sluicebox::box::test
