// Limits of a box by the host's cgroups.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <sstream>

#include "test/keeper/box_fixture.h"

using namespace sluicebox;
using namespace sluicebox::test;

namespace {

constexpr std::uint64_t kMiB = 1 << 20;

// The value that a file of the box's cgroup holds, the first that is there.
std::string value_of(const std::string& id, std::initializer_list<const char*> files) {
  for (const std::string& group : cgroups_named(id))
    for (const char* file : files)
      if (exists(group + "/" + file)) return read_text(group + "/" + file);
  return "none";
}

struct Limited {
  Home home;
  std::string directory = home.make_box();
  BoxUnderTest box{directory};
  Limited() { box.order.storage_bytes = 256 * kMiB; }
};

}  // namespace

TEST_CASE("S18 memory, cpu and process limits stand, are written in full, and go with the box") {
  Limited it;
  it.box.order.memory_bytes = {64 * kMiB, as_root()};
  it.box.order.vcpus = {1, as_root()};
  it.box.order.processes = {20, as_root()};
  const Answer& answer = it.box.launch();
  INFO(answer.failed.message << " " << answer.failed.path);
  REQUIRE(answer.launched);
  if (!as_root() && cgroups_named(it.box.order.id).empty()) {
    REQUIRE(answer.ok.warnings.size() == 3);
    const std::string uid = std::to_string(::geteuid());
    CHECK(answer.ok.warnings[0] == "memory limit: this host's cgroups do not let uid " + uid + " set one");
    return;
  }
  CHECK(answer.ok.warnings.empty());
  const std::string id = it.box.order.id;
  CHECK(value_of(id, {"memory.limit_in_bytes", "memory.max"}) == std::to_string(64 * kMiB) + "\n");
  CHECK(value_of(id, {"cpu.cfs_quota_us", "cpu.max"}).starts_with("100000"));
  CHECK(value_of(id, {"pids.max"}) == "21\n");
  // As recorded for whoever finds the box without a keeper.
  std::istringstream recorded(read_text(it.directory + "/cgroups"));
  int lines = 0;
  for (std::string line; std::getline(recorded, line); ++lines) CHECK(exists(line));
  CHECK(lines == static_cast<int>(cgroups_named(id).size()));
  // PID 1 is in each of them, and sees itself at the top.
  for (const std::string& group : cgroups_named(id))
    CHECK(read_text(group + "/cgroup.procs").find(std::to_string(it.box.pid1()) + "\n") != std::string::npos);
  CHECK(it.box.sh("grep -c sluicebox /proc/self/cgroup", 1) == "0\n");

  // A fork bomb and a hog end inside.
  CHECK(it.box.sh("for i in $(seq 40); do sleep 100 >/dev/null 2>&1 & done; echo", -1).find("Cannot fork") !=
        std::string::npos);
  it.box.sh("kill -9 -1", -1);
  CHECK(it.box.sh("head -c 200m /dev/zero | tail -c 200m | wc -c", -1).find("209715200") == std::string::npos);
  CHECK(it.box.sh("echo lives") == "lives\n");
  const auto ended = it.box.stop();
  CHECK(ended.oom_kills >= 1);
  CHECK(ended.leftovers.empty());
  it.box.await_keeper();
  CHECK(cgroups_named(id).empty());
}

TEST_CASE("S19 a limit asked for that this host cannot enforce is refused and named, nothing is left") {
  Limited it;
  // More than the kernel counts, or no cgroup at all.
  it.box.order.processes = {as_root() ? std::uint64_t{1} << 40 : 100, true};
  if (!as_root() && !cgroups_named("user@" + std::to_string(::geteuid())).empty()) return;  // delegated
  const Answer& answer = it.box.launch();
  CHECK_FALSE(answer.launched);
  CHECK(answer.failed.code == static_cast<std::uint32_t>(ErrorCode::kUnsupported));
  CHECK(answer.failed.message.starts_with("process limit"));
  CHECK(answer.failed.hint != "");
  CHECK(it.box.await_keeper() == 1);
  CHECK(cgroups_named(it.box.order.id).empty());
  CHECK(std::filesystem::is_empty(it.directory));
}

TEST_CASE("S31 a look-alike cgroup is not removed, and is no place for another box") {
  if (!as_root()) return;
  Limited it;
  std::string directory;
  {
    Limited other;
    other.box.order.processes = {10, true};
    REQUIRE(other.box.launch().launched);
    directory = cgroups_named(other.box.order.id).at(0);
  }
  const std::string taken = directory.substr(0, directory.rfind('/')) + "/sluicebox-" + it.box.order.id;
  REQUIRE(std::filesystem::create_directory(taken));
  it.box.order.processes = {10, true};
  CHECK_FALSE(it.box.launch().launched);
  it.box.await_keeper();
  CHECK(exists(taken));
  std::filesystem::remove(taken);
}
