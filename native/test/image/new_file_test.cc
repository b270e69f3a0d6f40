#include "image/ops/new_file.h"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "image/open_file.h"
#include "image/printable.h"
#include "test/image/operation.h"
#include "test/image/qemu.h"
#include "test/image/temp_dir.h"

namespace sluicebox::image {
namespace {

using testing::Operation;
using testing::slurp;
using testing::TempDir;

void put(const std::string& path, const std::string& text) { std::ofstream(path) << text; }

}  // namespace

TEST_CASE("I13: overwrite replaces the file that was there at the start, and no other that took its place") {
  for (const auto staging : {NewFile::Staging::kAnonymous, NewFile::Staging::kNamed}) {
    const TempDir directory;
    const std::string path = directory.file("image");
    for (const bool was_there : {false, true}) {
      CAPTURE(was_there);
      if (was_there) put(path, "old");
      Operation operation;
      {
        auto made = NewFile::begin(path, true, operation.context, staging);
        REQUIRE(made.ok());
        put(directory.file("another"), "another's");
        std::filesystem::rename(directory.file("another"), path);
        const Status outcome = made->publish(operation.cancel);
        REQUIRE_FALSE(outcome.ok());
        CHECK(outcome.error().code == ErrorCode::kImageLocked);
      }
      CHECK(slurp(path) == "another's");
      CHECK(std::distance(std::filesystem::directory_iterator(directory.path()), {}) == 1);
      std::filesystem::remove(path);
    }
  }
}

TEST_CASE("I13: a file that is replaced passes on its mode, its owner and its attributes") {
  for (const auto staging : {NewFile::Staging::kAnonymous, NewFile::Staging::kNamed}) {
    const TempDir directory;
    const std::string path = directory.file("image");
    put(path, "old");
    REQUIRE(::chmod(path.c_str(), 0640) == 0);
    const bool root = ::geteuid() == 0;
    if (root) REQUIRE(::chown(path.c_str(), 1234, 4321) == 0);
    const bool attributes = ::setxattr(path.c_str(), "user.note", "mine", 4, 0) == 0;
    Operation operation;
    auto made = NewFile::begin(path, true, operation.context, staging);
    REQUIRE(made.ok());
    REQUIRE(made->file().write_at(0, as_bytes(std::string_view("new"))).ok());
    REQUIRE(made->publish(operation.cancel).ok());
    CHECK(slurp(path) == "new");
    struct stat status = {};
    REQUIRE(::stat(path.c_str(), &status) == 0);
    CHECK((status.st_mode & 07777) == 0640);
    if (root) CHECK((status.st_uid == 1234 && status.st_gid == 4321));
    char note[4] = {};
    if (attributes) CHECK(::getxattr(path.c_str(), "user.note", note, 4) == 4);
    CHECK(std::distance(std::filesystem::directory_iterator(directory.path()), {}) == 1);
  }
}

TEST_CASE("I13: a block device is not replaced by a file") {
  const TempDir directory;
  const std::string path = directory.file("device");
  // A node with no driver behind it: it is refused before anything opens it.
  if (::mknod(path.c_str(), S_IFBLK | 0600, makedev(240, 7)) != 0) return;
  Operation operation;
  const auto made = NewFile::begin(path, true, operation.context);
  REQUIRE_FALSE(made.ok());
  CHECK(made.error().code == ErrorCode::kUnsupported);
}

TEST_CASE("I41: a file that took the image's name after it was opened is noticed") {
  const TempDir directory;
  put(directory.file("image"), "one");
  put(directory.file("other"), "two");
  const PathPolicy policy({}, false);
  auto found = FoundFile::find(directory.file("image"), NamedBy{}, policy);
  REQUIRE(found.ok());
  CHECK(found->still_named());
  std::filesystem::rename(directory.file("other"), directory.file("image"));
  CHECK_FALSE(found->still_named());
}

TEST_CASE("I41: a name in a message cannot steer a terminal or change the order of its words") {
  CHECK(printable("a\xc3\xa9\xe2\x82\xac") == "'a\xc3\xa9\xe2\x82\xac'");
  CHECK(printable("\xc2\x9b") == "'\\xc2\\x9b'");
  CHECK(printable("\x9b") == "'\\x9b'");
  CHECK(printable("\xe2\x80\xae") == "'\\xe2\\x80\\xae'");
  CHECK(printable("\xe2\x81\xa6") == "'\\xe2\\x81\\xa6'");
}

}  // namespace sluicebox::image
