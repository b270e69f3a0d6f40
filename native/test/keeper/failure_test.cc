// Each step of a launch fails in turn, for a cause of this world: the owner is told, and nothing is left.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>

#include "test/keeper/box_fixture.h"

using namespace sluicebox;
using namespace sluicebox::test;

namespace {

std::size_t children() {
  const std::string list = read_text("/proc/self/task/" + std::to_string(::getpid()) + "/children");
  return static_cast<std::size_t>(std::count(list.begin(), list.end(), ' '));
}

std::size_t descriptors() {
  std::size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) count += entry.exists() ? 1 : 0;
  return count;
}

struct Cause {
  const char* name;
  std::function<void(BoxUnderTest&, const Home&, const std::string& directory)> arrange;
  ErrorCode code;
  int error;            // 0: none
  const char* message;  // its beginning
};

const Cause kCauses[] = {
    {"too few descriptors", [](auto& box, auto&, auto&) { box.descriptors = 2; }, ErrorCode::kInvalidArgument, 0,
     "a launch came without its descriptors"},
    {"an id that is a path", [](auto& box, auto&, auto&) { box.order.id = "../x"; }, ErrorCode::kInvalidArgument, 0,
     "the box's id is not one"},
    {"the layer's name is taken by a file",
     [](auto& box, auto&, auto& directory) {
       box.order.keep = true;
       box.order.storage_bytes = 0;
       std::ofstream(directory + "/layer") << "x";
     },
     ErrorCode::kBoxStart, ENOTDIR, "cannot make the box's layer"},
    {"a hostname too long", [](auto& box, auto&, auto&) { box.order.hostname = std::string(65, 'h'); },
     ErrorCode::kBoxStart, EINVAL, "cannot set the box's hostname"},
    {"a storage too small for /etc", [](auto& box, auto&, auto&) { box.order.storage_bytes = 8192; },
     ErrorCode::kNoSpace, ENOSPC, "cannot copy a file to the box's /etc"},
    {"a root that is a file",
     [](auto& box, const Home& home, auto&) {
       box.order.root = protocol::Root::kDirectory;
       box.root = home.path() + "/missing/../missing";
       box.descriptors = 4;
     },
     ErrorCode::kInvalidArgument, 0, "a launch came without its descriptors"},
    {"a root whose /proc is a file",
     [](auto& box, const Home& home, auto&) {
       box.order.root = protocol::Root::kDirectory;
       box.root = home.path() + "/root";
       std::filesystem::create_directory(box.root);
       std::ofstream(box.root + "/proc") << "x";
     },
     ErrorCode::kBoxStart, ENOTDIR, "cannot make a place to mount on in the box"},
    {"an agent that is no program", [](auto& box, auto&, auto&) { box.agent = "/etc/services"; }, ErrorCode::kBoxStart,
     ENOEXEC, "cannot execute the agent"},
};

}  // namespace

TEST_CASE("S33 S34 a launch that fails says at which step and why, and leaves nothing") {
  const std::string mounts = read_text("/proc/self/mountinfo");
  const std::size_t open_before = descriptors();
  for (const Cause& cause : kCauses) {
    const Home home;
    const std::string directory = home.make_box();
    std::string id;
    {
      BoxUnderTest box(directory);
      cause.arrange(box, home, directory);
      id = box.order.id;
      box.start_keeper();
      box.send_order();
      const Answer& answer = box.await_answer();
      INFO(cause.name << ": " << answer.failed.message << " " << answer.failed.path);
      CHECK_FALSE(answer.launched);
      CHECK(answer.failed.code == static_cast<std::uint32_t>(cause.code));
      CHECK(static_cast<int>(answer.failed.os_error) == cause.error);
      CHECK(answer.failed.message.starts_with(cause.message));
      CHECK(box.await_keeper() == 1);
    }
    CHECK(cgroups_named("sluicebox-" + id).empty());
    CHECK_FALSE(exists(directory + "/cgroups"));
  }
  CHECK(children() == 0);
  CHECK(descriptors() == open_before);
  CHECK(read_text("/proc/self/mountinfo") == mounts);
}

TEST_CASE("S34 an owner that hangs up before the launch is over ends it") {
  const Home home;
  const std::string directory = home.make_box();
  BoxUnderTest box(directory);
  box.start_keeper();
  box.send_order();
  box.hang_up();
  box.await_keeper();
  CHECK_FALSE(exists(directory));
}

TEST_CASE("S34 an owner that never orders a box leaves a keeper that ends with it") {
  const Home home;
  BoxUnderTest box(home.make_box());
  box.start_keeper();
  box.hang_up();
  CHECK(box.await_keeper() == 1);
}

TEST_CASE("S33 B29 200 launches leave no descriptor, process, mount, cgroup or file") {
  const Home home;
  const std::string mounts = read_text("/proc/self/mountinfo");
  const std::size_t open_before = descriptors();
  const std::size_t cgroups_before = cgroups_named("sluicebox-").size();
  for (int i = 0; i < 200; ++i) {
    BoxUnderTest box(home.make_box());
    REQUIRE(box.launch().launched);
    REQUIRE(box.stop().leftovers.empty());
  }
  CHECK(children() == 0);
  CHECK(descriptors() == open_before);
  CHECK(read_text("/proc/self/mountinfo") == mounts);
  CHECK(cgroups_named("sluicebox-").size() == cgroups_before);
  CHECK(std::filesystem::is_empty(home.path()));
}

TEST_CASE("B6 twenty boxes at once share no ids") {
  const Home home;
  std::vector<std::unique_ptr<BoxUnderTest>> boxes;
  for (int i = 0; i < 20; ++i) {
    boxes.push_back(std::make_unique<BoxUnderTest>(home.make_box()));
    boxes.back()->start_keeper();
    boxes.back()->send_order();
  }
  std::vector<std::uint32_t> firsts;
  for (const auto& box : boxes) {
    REQUIRE(box->await_answer().launched);
    firsts.push_back(box->answer().ok.first_uid);
  }
  std::sort(firsts.begin(), firsts.end());
  if (as_root()) CHECK(std::adjacent_find(firsts.begin(), firsts.end()) == firsts.end());
}
