// Where a host's cgroups lie, from its tables: v1, v2 and both at once.
#include "walls/cgroup_tree.h"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "test/image/temp_dir.h"

using namespace sluicebox;
using walls::CgroupTree;

namespace {

std::string v2_mount(const std::string& at) { return "31 23 0:28 / " + at + " rw - cgroup2 cgroup2 rw\n"; }

void hand_down(const std::string& directory, const std::string& controllers) {
  std::filesystem::create_directories(directory);
  std::ofstream(directory + "/cgroup.subtree_control") << controllers << "\n";
}

}  // namespace

TEST_CASE("S18 v1: the own directory of each controller's hierarchy, co-mounted ones as well") {
  const std::string mounts =
      "33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
      "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n";
  const CgroupTree tree = CgroupTree::parse(mounts, "4:memory:/a/b\n2:cpu,cpuacct:/\n");
  CHECK(tree.find("memory").version == 1);
  CHECK(tree.find("memory").base == "/sys/fs/cgroup/memory/a/b");
  CHECK(tree.find("cpu").base == "/sys/fs/cgroup/cpu,cpuacct");
  CHECK(tree.find("pids").version == 0);
}

TEST_CASE("S18 v1 in a container: what is mounted is the container's part") {
  const CgroupTree tree = CgroupTree::parse("35 31 0:32 /docker/x /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
                                            "4:memory:/docker/x/y\n");
  CHECK(tree.find("memory").base == "/sys/fs/cgroup/memory/y");
}

TEST_CASE("S18 v2: the own directory if it hands the controller down, else its parent, else none") {
  const image::testing::TempDir top;
  const CgroupTree tree = CgroupTree::parse(v2_mount(top.path()), "0::/app.slice/run.scope\n");
  hand_down(top.file("app.slice/run.scope"), "");
  hand_down(top.file("app.slice"), "memory pids");
  CHECK(tree.find("memory").version == 2);
  CHECK(tree.find("memory").base == top.file("app.slice"));
  CHECK(tree.find("cpu").version == 0);
  hand_down(top.file("app.slice/run.scope"), "cpu");
  CHECK(tree.find("cpu").base == top.file("app.slice/run.scope"));
}

TEST_CASE("S35 lines that are cut short or no cgroup's are passed over") {
  for (const char* mounts :
       {"", "\n\n", "1", "1 2 3 - cgroup", "1 2 3 4 5 6 - cgroup", "a - b - c", "1 2 0:1 / /p rw - proc proc rw"}) {
    CHECK(CgroupTree::parse(mounts, "x\n::\n0\n").find("memory").version == 0);
  }
}
