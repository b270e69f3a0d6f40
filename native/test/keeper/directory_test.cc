// Boxes on a root file system of the caller's own.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>

#include "test/keeper/box_fixture.h"

using namespace sluicebox;
using namespace sluicebox::test;

namespace {

// A root with one static program in it: the probe, which is PID 1 anyway, and cat and sh from busybox are not needed.
// The probe's calls do the looking.
struct OwnRoot {
  Home home;
  std::string root = home.path() + "/root";
  std::string directory = home.make_box();
  BoxUnderTest box{directory};
  OwnRoot() {
    for (const char* name : {"bin", "etc", "full/deep"}) std::filesystem::create_directories(root + "/" + name);
    std::ofstream(root + "/etc/note") << "of the root";
    std::ofstream(root + "/full/deep/file") << "x";
    box.order.root = protocol::Root::kDirectory;
    box.root = root;
  }
  void start() {
    const Answer& answer = box.launch();
    INFO(answer.failed.message << " " << answer.failed.path << " " << answer.failed.hint);
    REQUIRE(answer.launched);
  }
  // The box's files, through its PID 1's root as the host sees it.
  std::string in_box(const std::string& path) const { return "/proc/" + std::to_string(box.pid1()) + "/root" + path; }
};

constexpr const char* kCreate = "577";  // O_WRONLY | O_CREAT | O_TRUNC

}  // namespace

TEST_CASE("S4 S21 a directory as root: written to in the layer only, owned by root of the box") {
  OwnRoot it;
  it.start();
  CHECK(it.box.call(SYS_openat, {"-100", "'/etc/note", kCreate, "420"}).error == 0);
  CHECK(it.box.call(SYS_mkdirat, {"-100", "'/full/new", "493"}).error == 0);
  CHECK(it.box.call(SYS_unlinkat, {"-100", "'/full/deep/file", "0"}).error == 0);
  CHECK(it.box.call(SYS_fchownat, {"-100", "'/etc/note", "0", "0", "0"}).error == 0);
  CHECK(it.box.call(SYS_openat, {"-100", "'/full/deep/file", "0", "0"}).error == ENOENT);
  CHECK(read_text(it.root + "/etc/note") == "of the root");
  CHECK(exists(it.root + "/full/deep/file"));
  CHECK_FALSE(exists(it.root + "/full/new"));
  CHECK(it.box.call(SYS_openat, {"-100", "'/dev/null", "1", "0"}).error == 0);
  CHECK(it.box.call(SYS_openat, {"-100", "'/proc/self/status", "0", "0"}).error == 0);
  // Root of the box owns what it made, and is nobody outside.
  it.box.stop();
  CHECK_FALSE(exists(it.directory));
}

TEST_CASE("S9 a link in the root where the box mounts is refused, nothing is mounted through it") {
  for (const char* name : {"proc", "dev", "tmp", "var"}) {
    OwnRoot it;
    const std::string outside = it.home.path() + "/outside";
    std::filesystem::create_directories(outside + "/tmp");
    std::filesystem::create_directory_symlink("../outside", it.root + "/" + name);
    const Answer& answer = it.box.launch();
    INFO(name << ": " << answer.failed.message);
    CHECK_FALSE(answer.launched);
    CHECK(answer.failed.code == static_cast<std::uint32_t>(ErrorCode::kBoxStart));
    CHECK(answer.failed.os_error == ELOOP);
    CHECK(answer.failed.path.find(name) != std::string::npos);
    CHECK(answer.failed.hint != "");
    CHECK(it.box.await_keeper() == 1);
    CHECK(std::filesystem::is_empty(outside + "/tmp"));
  }
}

TEST_CASE("B14 a kept layer over a directory outlives the launch, deletions too") {
  OwnRoot first;
  first.box.order.keep = true;
  first.box.order.storage_bytes = 0;
  first.start();
  CHECK(first.box.call(SYS_openat, {"-100", "'/etc/note", kCreate, "420"}).error == 0);
  CHECK(first.box.call(SYS_unlinkat, {"-100", "'/full/deep/file", "0"}).error == 0);
  first.box.stop();
  first.box.await_keeper();
  BoxUnderTest second(first.directory);
  second.order = first.box.order;
  second.root = first.root;
  REQUIRE(second.launch().launched);
  CHECK(second.call(SYS_openat, {"-100", "'/full/deep/file", "0", "0"}).error == ENOENT);
  CHECK(second.call(SYS_openat, {"-100", "'/etc/note", "1", "0"}).error == 0);
  second.stop();
  second.await_keeper();
  std::error_code failed;
  std::filesystem::remove_all(first.directory + "/layer", failed);
  CHECK_FALSE(failed);
}

TEST_CASE("B34 S19 a storage asked for is refused for a layer that is kept") {
  Home home;
  BoxUnderTest box(home.make_box());
  box.order.keep = true;
  box.order.storage_asked = true;
  const Answer& answer = box.launch();
  CHECK_FALSE(answer.launched);
  CHECK(answer.failed.code == static_cast<std::uint32_t>(ErrorCode::kUnsupported));
  CHECK(answer.failed.message.starts_with("storage limit"));
}
