// A box that was begun ahead of its order is the box that was ordered.
#include <doctest/doctest.h>
#include <poll.h>
#include <signal.h>

#include "test/keeper/box_fixture.h"

using namespace sluicebox;
using namespace sluicebox::test;

namespace {

std::string child_of(pid_t process) {
  const std::string name = std::to_string(process);
  return read_text("/proc/" + name + "/task/" + name + "/children");
}

// The keeper's first child, once there is one.
pid_t begun_by(const BoxUnderTest& box) {
  for (int tries = 0; tries < 2000; ++tries) {
    if (const std::string child = child_of(box.keeper()); !child.empty()) return std::stoi(child);
    ::poll(nullptr, 0, 5);
  }
  return 0;
}

}  // namespace

TEST_CASE("a box that was begun ahead has the name, the bounds and the walls of its order") {
  const Home home;
  BoxUnderTest box(home.make_box());
  box.order.hostname = "named-late";
  box.order.storage_bytes = std::uint64_t{8} << 20;
  box.order.processes = {.value = 40, .asked = false};
  box.start_keeper();
  box.prepare();
  const pid_t begun = begun_by(box);
  REQUIRE(begun > 0);
  box.send_order();
  const Answer& answer = box.await_answer();
  INFO(answer.failed.message << " " << answer.failed.path << " " << answer.failed.hint);
  REQUIRE(answer.launched);
  CHECK(box.pid1() == begun);
  CHECK(box.sh("hostname 2>/dev/null || cat /proc/sys/kernel/hostname; cat /etc/hostname") ==
        "named-late\nnamed-late\n");
  CHECK(box.sh("ulimit -u 2>/dev/null || grep processes /proc/self/limits | tr -s ' ' | cut -d ' ' -f 4", -1)
            .starts_with("41"));
  CHECK(box.sh("head -c 16777216 /dev/zero > /tmp/much 2>/dev/null; stat -c %s /tmp/much") != "16777216\n");
  CHECK(box.sh("grep -E 'NoNewPrivs|Seccomp:' /proc/self/status | tr -d '\\t'") == "NoNewPrivs:1\nSeccomp:2\n");
  CHECK(box.stop().asked);
  CHECK(box.await_keeper() == 0);
}

TEST_CASE("a beginning that does not fit the order is ended, and the box is begun anew") {
  const Home home;
  BoxUnderTest box(home.make_box());
  box.order.keep = true;
  box.order.storage_bytes = 0;
  box.start_keeper();
  box.prepare();
  const pid_t begun = begun_by(box);
  REQUIRE(begun > 0);
  box.send_order();
  if (box.await_answer().launched) {
    CHECK(box.pid1() != begun);
    CHECK(box.stop().asked);
  }
  CHECK((::kill(begun, 0) != 0 ||
         read_text("/proc/" + std::to_string(begun) + "/status").find("\nPPid:\t" + std::to_string(box.keeper())) ==
             std::string::npos));
  box.await_keeper();
}

TEST_CASE("without an order a beginning goes with its owner") {
  const Home home;
  BoxUnderTest box(home.make_box());
  box.start_keeper();
  box.prepare();
  const pid_t begun = begun_by(box);
  REQUIRE(begun > 0);
  box.hang_up();
  CHECK(box.await_keeper() == 1);
  CHECK(::kill(begun, 0) != 0);
}
