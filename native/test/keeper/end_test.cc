// However a box ends, nothing of it is left.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>

#include "test/keeper/box_fixture.h"

using namespace sluicebox;
using namespace sluicebox::test;

namespace {

// A process that has ended but was not waited for: init of this host does that when it comes to it.
bool ended(const std::string& process) {
  const std::string stat = read_text(process + "/stat");
  const std::size_t name = stat.rfind(')');
  return name == std::string::npos || stat.substr(name, 3) == ") Z";
}

// Live processes whose pid namespace is this one, by the kernel's table.
int processes_in(const std::string& pid_namespace) {
  int count = 0;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", ignored)) {
    const std::string own = std::filesystem::read_symlink(entry.path() / "ns/pid", ignored).string();
    count += own == pid_namespace && !ended(entry.path()) ? 1 : 0;
  }
  return count;
}

std::string namespace_of(pid_t process) {
  std::error_code ignored;
  return std::filesystem::read_symlink("/proc/" + std::to_string(process) + "/ns/pid_for_children", ignored).string();
}

struct Running {
  Home home;
  std::string directory = home.make_box();
  BoxUnderTest box{directory};
  std::string pids;
  UniqueFd first;
  void start() {
    const Answer& answer = box.launch();
    INFO(answer.failed.message << " " << answer.failed.path << " " << answer.failed.hint);
    REQUIRE(answer.launched);
    first = box.open_pid1();
    pids = namespace_of(box.pid1());
    // Something that outlives its parent, in a session of its own.
    box.sh("setsid sleep 1000 >/dev/null 2>&1 & sleep 0");
    REQUIRE(processes_in(pids) >= 2);
  }
  void check_gone() {
    CHECK(await(first.get(), POLLIN));
    CHECK(processes_in(pids) == 0);
    CHECK(cgroups_named(box.order.id).empty());
  }
};

}  // namespace

TEST_CASE("B9 the owner hangs up: PID 1 and all of the box end, and its directory goes") {
  Running it;
  it.start();
  it.box.hang_up();
  CHECK(it.box.await_keeper() == 0);
  it.check_gone();
  CHECK_FALSE(exists(it.directory));
}

TEST_CASE("B43 the keeper is killed: PID 1 and all of the box end") {
  Running it;
  it.start();
  it.box.kill_keeper();
  CHECK(await(it.first.get(), POLLIN));
  CHECK(it.box.await_keeper() == 1009);
  CHECK(processes_in(it.pids) == 0);
  // Its directory stays for the next open: unlocked.
  const UniqueFd lock(::open((it.directory + "/lock").c_str(), O_RDWR | O_CLOEXEC));
  REQUIRE(lock.valid());
  CHECK(::flock(lock.get(), LOCK_EX | LOCK_NB) == 0);
}

TEST_CASE("B17 S22 PID 1 ends by itself: the box ends, the keeper cleans and says how it ended") {
  Running it;
  it.start();
  it.box.tell("x");
  const auto ended = it.box.await_end();
  CHECK_FALSE(ended.asked);
  CHECK_FALSE(ended.forced);
  CHECK_FALSE(ended.signaled);
  CHECK(ended.code == 7);
  CHECK(ended.leftovers.empty());
  CHECK(it.box.await_keeper() == 0);
  it.check_gone();
  CHECK_FALSE(exists(it.directory));
}

TEST_CASE("B17 PID 1 is killed from outside: the keeper tells the signal") {
  Running it;
  it.start();
  REQUIRE(::kill(it.box.pid1(), SIGKILL) == 0);
  const auto ended = it.box.await_end();
  CHECK(ended.signaled);
  CHECK(ended.code == SIGKILL);
  it.check_gone();
}

TEST_CASE("S22 a stop reaches PID 1 and its end is not forced; without grace it is killed") {
  {
    Running it;
    it.start();
    const auto ended = it.box.stop(60000);
    CHECK(ended.asked);
    CHECK_FALSE(ended.forced);
    CHECK(ended.code == 0);
    it.check_gone();
  }
  Running it;
  it.start();
  const auto ended = it.box.stop(0);
  CHECK(ended.asked);
  CHECK(ended.forced);
  CHECK(ended.signaled);
  it.check_gone();
}

TEST_CASE("B15 an agent that does not follow a stop is killed after its grace") {
  Running it;
  it.start();
  REQUIRE(::kill(it.box.pid1(), SIGSTOP) == 0);
  const auto ended = it.box.stop(50);
  CHECK(ended.forced);
  CHECK(ended.code == SIGKILL);
  it.check_gone();
}

TEST_CASE("B8 a box that is running is refused to a second keeper, and free after the first") {
  Running it;
  it.start();
  {
    BoxUnderTest second(it.directory);
    const Answer& answer = second.launch();
    CHECK_FALSE(answer.launched);
    CHECK(answer.failed.code == static_cast<std::uint32_t>(ErrorCode::kInUse));
    CHECK(second.await_keeper() == 1);
  }
  // The refusal took nothing away.
  CHECK(it.box.sh("echo lives") == "lives\n");
  it.box.kill_keeper();
  it.box.await_keeper();
  CHECK(await(it.first.get(), POLLIN));
  BoxUnderTest third(it.directory);
  CHECK(third.launch().launched);
}

TEST_CASE("S30 removal follows no link out of the box's directory") {
  Running it;
  const std::string outside = it.home.path() + "/outside";
  std::filesystem::create_directories(outside + "/kept");
  std::filesystem::create_directory_symlink(outside, it.directory + "/link");
  std::filesystem::create_directories(it.directory + "/a/b/c");
  std::ofstream(it.directory + "/a/b/c/file") << "x";
  it.start();
  it.box.stop();
  CHECK_FALSE(exists(it.directory));
  CHECK(exists(outside + "/kept"));
}

TEST_CASE("S31 a look-alike beside the box's directory survives its removal") {
  Running it;
  const std::string beside = it.directory + "0";
  std::filesystem::create_directory(beside);
  it.start();
  it.box.stop();
  CHECK_FALSE(exists(it.directory));
  CHECK(exists(beside));
}

TEST_CASE("B14 a kept layer outlives the launch, on the host's root") {
  Home home;
  const std::string directory = home.make_box();
  for (const bool again : {false, true}) {
    BoxUnderTest box(directory);
    box.order.keep = true;
    box.order.storage_bytes = 0;
    std::ofstream(directory + "/record.json") << "{}";
    const Answer& answer = box.launch();
    INFO(answer.failed.message << " " << answer.failed.path << " " << answer.failed.hint);
    REQUIRE(answer.launched);
    if (again) CHECK(box.sh("cat /root/note; stat -c '%u %g' /root/note /etc/passwd") == "kept\n0 0\n0 0\n");
    if (!again) CHECK(box.sh("echo kept > /root/note") == "");
    CHECK(box.stop().leftovers.empty());
    box.await_keeper();
    CHECK(exists(directory + "/record.json"));
    CHECK(exists(directory + "/layer"));
    CHECK_FALSE(exists(directory + "/lock"));
    CHECK_FALSE(exists(directory + "/cgroups"));
  }
}
