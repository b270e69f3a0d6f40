#include "base/path_policy.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "test/image/temp_dir.h"

namespace sluicebox {
namespace {

using image::testing::TempDir;

UniqueFd find(const std::string& path) { return UniqueFd(::open(path.c_str(), O_PATH | O_CLOEXEC)); }

void touch(const std::string& path) { std::ofstream file(path); }

}  // namespace

TEST_CASE("I41: a file is allowed by where it lies, not by how its path is written") {
  const TempDir inside;
  const TempDir outside;
  touch(inside.file("a"));
  touch(outside.file("b"));
  std::filesystem::create_symlink(outside.file("b"), inside.file("link-out"));
  std::filesystem::create_symlink(inside.file("a"), outside.file("link-in"));
  const PathPolicy policy({inside.path()}, false);
  CHECK(policy.allows(find(inside.file("a")).get()));
  CHECK(policy.allows(find(inside.path()).get()));
  CHECK(policy.allows(find(outside.file("link-in")).get()));
  CHECK_FALSE(policy.allows(find(inside.file("link-out")).get()));
  CHECK_FALSE(policy.allows(find(outside.file("b")).get()));
  const std::string name = std::filesystem::path(outside.path()).filename().string();
  CHECK_FALSE(policy.allows(find(inside.path() + "/../" + name + "/b").get()));
}

TEST_CASE("I41: a directory whose name only begins alike is another one") {
  const TempDir directory;
  std::filesystem::create_directory(directory.file("vm"));
  std::filesystem::create_directory(directory.file("vm2"));
  touch(directory.file("vm2/a"));
  const PathPolicy policy({directory.file("vm")}, false);
  CHECK_FALSE(policy.allows(find(directory.file("vm2/a")).get()));
  CHECK(policy.allows(find(directory.file("vm2/a")).get(), {directory.file("vm2")}));
}

TEST_CASE("the root trusts every path; a missing, empty or relative directory none") {
  const TempDir directory;
  touch(directory.file("a"));
  CHECK(PathPolicy({"/"}, false).allows(find(directory.file("a")).get()));
  CHECK_FALSE(
      PathPolicy({directory.file("none"), "", std::string("/\0", 2)}, false).allows(find(directory.file("a")).get()));
  CHECK_FALSE(PathPolicy({}, false).allows(find(directory.file("a")).get()));
  CHECK(PathPolicy({directory.path() + "///"}, false).allows(find(directory.file("a")).get()));
}

TEST_CASE("an allowed directory that is a symlink means what it leads to when the policy is made") {
  const TempDir directory;
  std::filesystem::create_directory(directory.file("real"));
  touch(directory.file("real/a"));
  std::filesystem::create_directory_symlink(directory.file("real"), directory.file("link"));
  const PathPolicy policy({directory.file("link")}, false);
  CHECK(policy.allows(find(directory.file("real/a")).get()));
}

TEST_CASE("a deleted file has no path, also when another bears the name with ' (deleted)' behind it") {
  const TempDir directory;
  touch(directory.file("a"));
  touch(directory.file("a (deleted)"));
  const UniqueFd fd = find(directory.file("a"));
  CHECK(path_of_fd(fd.get()).value() == directory.file("a"));
  CHECK(path_of_fd(find(directory.file("a (deleted)")).get()).value() == directory.file("a (deleted)"));
  std::filesystem::remove(directory.file("a"));
  CHECK_FALSE(path_of_fd(fd.get()).ok());
  CHECK_FALSE(PathPolicy({"/"}, false).allows(fd.get()));
}

TEST_CASE("a path longer than any first guess is told whole") {
  const TempDir directory;
  std::string deep = directory.path();
  for (int i = 0; i < 10; ++i) deep += "/" + std::string(200, 'd');
  std::filesystem::create_directories(deep);
  CHECK(path_of_fd(find(deep).get()).value() == deep);
}

}  // namespace sluicebox
