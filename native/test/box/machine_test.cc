#include "test/box/test_machine.h"

namespace sluicebox::box::test {

namespace {

using image::testing::TempDir;

// Says what is missing, once a test.
bool possible() {
  const std::string missing = missing_capability();
  if (!missing.empty()) MESSAGE("skipped, this host lacks: ", missing);
  return missing.empty();
}

std::string output(Host& host, std::uint32_t channel, std::string script) {
  Spawn spawn = framed(shell(std::move(script)), false);
  spawn.user = {};
  const Outcome outcome = run(host, channel, spawn);
  CHECK_MESSAGE(outcome.exited.code == 0, outcome.err);
  return outcome.out;
}

TEST_SUITE("machine") {
  TEST_CASE("boots, runs a program on its disk, and leaves the disk clean") {
    if (!possible()) return;
    const TempDir folder;
    const std::string disk = make_disk(folder);
    TestMachine machine({.disk = disk});
    machine.greet();
    const auto greeted = machine.since_start();
    machine.stand(machine_with());
    MESSAGE("greeted after ", greeted.count(), " ms, ready after ", machine.since_start().count(), " ms");
    CHECK(output(machine.host(), 1, "busybox echo hi") == "hi\n");
    MESSAGE("first output after ", machine.since_start().count(), " ms");
    CHECK(output(machine.host(), 2, "echo kept > /kept; mkdir /made; busybox hostname") == "testbox\n");
    machine.shut_down();
    CHECK(machine.ended() == 0);
    MESSAGE(machine.log());
    const std::string log = folder.file("fsck.log");
    CHECK_MESSAGE(wait_for_exit(start_program({program("e2fsck"), "-fn", disk}, log), std::chrono::seconds(60)) == 0,
                  contents(log));
  }
}

}  // namespace

}  // namespace sluicebox::box::test
