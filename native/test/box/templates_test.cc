#include "box/templates.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <set>
#include <sstream>

#include "box/digest.h"
#include "test/image/temp_dir.h"

namespace sluicebox::box::test {

namespace {

using image::testing::TempDir;

// A box's directory with an overlay, and templates beside it.
struct Kitchen {
  TempDir folder;
  std::string path = folder.file("templates");
  Templates templates{path};
  UniqueFd box{::open(folder.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  Ingredients of{.text = "a machine", .time_stamp_khz = 2'000'000};

  Kitchen() { std::ofstream(folder.file("disk0.qcow2")) << "what the boot wrote"; }
  std::string file(const std::string& name) const { return path + "/" + of.key() + "/" + name; }
  // With this state, up to its record.
  static void fill(const Kitchen& kitchen, Templates::Making& making) {
    const UniqueFd state = making.state().value();
    REQUIRE(::write(state.get(), "memory", 6) == 6);
    REQUIRE(making
                .add_disks(
                    kitchen.box.get(),
                    {DiskRecord{.format = {}, .overlay = "disk0.qcow2", .bases = {}, .next_bases = {}}, DiskRecord{}})
                .ok());
  }
  void keep(const Ingredients& what) const {
    auto making = templates.make(what, 1);
    REQUIRE(making.value());
    fill(*this, *making.value());
    REQUIRE(making.value()->finish(what).ok());
  }
};

std::string text_of(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

bool exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

}  // namespace

TEST_CASE("B24: a template is found by what it was made of, whole, and its disks are copied") {
  const Kitchen kitchen;
  CHECK_FALSE(kitchen.templates.find(kitchen.of));
  kitchen.keep(kitchen.of);
  const auto entry = kitchen.templates.find(kitchen.of);
  REQUIRE(entry);
  CHECK(digest_of(entry->state.get()).value() == entry->state_digest);
  REQUIRE(entry->disk_digests.size() == 2);
  CHECK(entry->disk_digests[1].empty());
  REQUIRE(Templates::copy_disk(*entry, 0, kitchen.box.get(), "copy").ok());
  CHECK(text_of(kitchen.folder.file("copy")) == "what the boot wrote");
  struct stat facts{};
  REQUIRE(::stat(kitchen.path.c_str(), &facts) == 0);
  CHECK((facts.st_mode & 0777) == 0700);
  // Of other things, or by another clock, it is none.
  CHECK_FALSE(kitchen.templates.find({.text = "another machine", .time_stamp_khz = 2'000'000}));
  CHECK(kitchen.templates.find({.text = "a machine", .time_stamp_khz = 2'000'100}));
  CHECK_FALSE(kitchen.templates.find({.text = "a machine", .time_stamp_khz = 2'100'000}));
}

TEST_CASE("B24: the digests expose what is damaged, and a record that is damaged makes it none") {
  const Kitchen kitchen;
  for (const char* name : {"state", "disk0.qcow2", "template.json"}) {
    CAPTURE(name);
    kitchen.keep(kitchen.of);
    const UniqueFd file(::open(kitchen.file(name).c_str(), O_WRONLY | O_CLOEXEC));
    REQUIRE(::pwrite(file.get(), "X", 1, 0) == 1);
    const auto entry = kitchen.templates.find(kitchen.of);
    if (!entry) {
      CHECK(std::string(name) == "template.json");
      CHECK_FALSE(exists(kitchen.file("")));
      continue;
    }
    const bool state = digest_of(entry->state.get()).value() == entry->state_digest;
    const bool disk = Templates::copy_disk(*entry, 0, kitchen.box.get(), "copy").ok();
    CHECK(state == (std::string(name) != "state"));
    CHECK(disk == (std::string(name) != "disk0.qcow2"));
    kitchen.templates.drop(*entry);
    CHECK_FALSE(exists(kitchen.file("")));
  }
}

TEST_CASE("B24: dropping one spares the one that was made since") {
  const Kitchen kitchen;
  kitchen.keep(kitchen.of);
  const auto old = kitchen.templates.find(kitchen.of);
  REQUIRE(old);
  kitchen.templates.drop(*old);
  kitchen.keep(kitchen.of);
  kitchen.templates.drop(*old);
  const auto now = kitchen.templates.find(kitchen.of);
  REQUIRE(now);
  CHECK(now->id != old->id);
}

TEST_CASE("B24: others' directories are not trusted, and only so many templates are kept, those last used") {
  const Kitchen kitchen;
  kitchen.keep(kitchen.of);
  REQUIRE(::chmod(kitchen.path.c_str(), 0777) == 0);
  CHECK_FALSE(kitchen.templates.find(kitchen.of));
  CHECK(kitchen.templates.make(kitchen.of, 1).error().code == ErrorCode::kPermission);
  REQUIRE(::chmod(kitchen.path.c_str(), 0700) == 0);
  const timespec long_ago[2] = {{.tv_sec = 1, .tv_nsec = 0}, {.tv_sec = 1, .tv_nsec = 0}};
  REQUIRE(::utimensat(AT_FDCWD, kitchen.file("template.json").c_str(), long_ago, 0) == 0);
  for (std::size_t i = 0; i < Templates::kMost; ++i)
    kitchen.keep({.text = std::to_string(i), .time_stamp_khz = 2'000'000});
  CHECK_FALSE(kitchen.templates.find(kitchen.of));
  for (std::size_t i = 0; i < Templates::kMost; ++i)
    CHECK(kitchen.templates.find({.text = std::to_string(i), .time_stamp_khz = 2'000'000}));
}

TEST_CASE("B25: of two makers one makes it, nothing shows until it is whole, and who comes late has nothing to do") {
  const Kitchen kitchen;
  {
    auto first = kitchen.templates.make(kitchen.of, 1);
    REQUIRE(first.value());
    Kitchen::fill(kitchen, *first.value());
    CHECK_FALSE(kitchen.templates.find(kitchen.of));
    CHECK_FALSE(kitchen.templates.make(kitchen.of, 1).value());
    REQUIRE(first.value()->finish(kitchen.of).ok());
  }
  CHECK(kitchen.templates.find(kitchen.of));
  CHECK_FALSE(kitchen.templates.make(kitchen.of, 1).value());
  CHECK(kitchen.templates.find(kitchen.of));
}

TEST_CASE("B25: a maker that gave up leaves nothing, and one that was killed is replaced") {
  const Kitchen kitchen;
  {
    auto given_up = kitchen.templates.make(kitchen.of, 1);
    REQUIRE(given_up.value());
    Kitchen::fill(kitchen, *given_up.value());
  }
  CHECK_FALSE(exists(kitchen.path + "/" + kitchen.of.key() + ".new"));
  const pid_t child = ::fork();
  if (child == 0) {
    auto making = kitchen.templates.make(kitchen.of, 1);
    if (making.ok() && making.value()) Kitchen::fill(kitchen, *making.value());
    ::_exit(0);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(exists(kitchen.path + "/" + kitchen.of.key() + ".new/state"));
  CHECK_FALSE(kitchen.templates.find(kitchen.of));
  kitchen.keep({.text = "another", .time_stamp_khz = 1});  // tidies up
  CHECK_FALSE(exists(kitchen.path + "/" + kitchen.of.key() + ".new"));
  kitchen.keep(kitchen.of);
  CHECK(kitchen.templates.find(kitchen.of));
}

TEST_CASE("B24: what a machine is made of has all in it that its memory depends on") {
  const auto text =
      [](const std::function<void(BoxRecord&, std::vector<OpenDisk>&, std::string&, std::string&)>& change) {
        BoxRecord record;
        record.id = new_box_id().value();
        record.spec.machine = true;
        record.spec.memory_bytes.value = 256 << 20;
        record.spec.vcpus.value = 1;
        record.spec.processes.value = 512;
        record.spec.disks.push_back({.path = "/images/base.raw", .format = "raw", .mode = DiskMode::kOverlay});
        record.disks.push_back(
            {.format = "raw",
             .overlay = "disk0.qcow2",
             .bases = {{.path = "/images/base.raw", .device = 1, .inode = 2, .size = 3, .mtime_ns = 4}},
             .next_bases = std::nullopt});
        std::vector<OpenDisk> disks(1);
        disks[0].size = 512 << 20;
        disks[0].layers.push_back({.format = image::DiskFormat::kQcow2, .file = {}});
        disks[0].layers.push_back({.format = image::DiskFormat::kRaw, .file = {}});
        std::string boot = "kernel initrd";
        std::string qemu = "7.2";
        change(record, disks, boot, qemu);
        return ingredients_of(record, disks, boot, qemu).text;
      };
  using Record = BoxRecord&;
  using Disks = std::vector<OpenDisk>&;
  using Text = std::string&;
  const std::set<std::string> all = {
      text([](Record, Disks, Text, Text) {}),
      text([](Record, Disks, Text boot, Text) { boot += "2"; }),
      text([](Record, Disks, Text, Text qemu) { qemu += "2"; }),
      text([](Record record, Disks, Text, Text) { record.spec.memory_bytes.value *= 2; }),
      text([](Record record, Disks, Text, Text) { record.spec.vcpus.value = 2; }),
      text([](Record record, Disks, Text, Text) { record.spec.processes.value = 64; }),
      text([](Record, Disks disks, Text, Text) { disks[0].size *= 2; }),
      text([](Record, Disks disks, Text, Text) { disks[0].writable = false; }),
      text([](Record, Disks disks, Text, Text) { disks[0].layers[1].format = image::DiskFormat::kQcow2; }),
      text([](Record record, Disks, Text, Text) { record.disks[0].bases[0].path += "2"; }),
      text([](Record record, Disks, Text, Text) { record.disks[0].bases[0].device = 9; }),
      text([](Record record, Disks, Text, Text) { record.disks[0].bases[0].inode = 9; }),
      text([](Record record, Disks, Text, Text) { record.disks[0].bases[0].size = 9; }),
      text([](Record record, Disks, Text, Text) { record.disks[0].bases[0].mtime_ns = 9; }),
      text([](Record record, Disks disks, Text, Text) {
        record.disks.push_back(record.disks[0]);
        disks.emplace_back().size = 1;
      })};
  CHECK(all.size() == 15);
  // What is a box's own is not in it.
  CHECK(text([](Record record, Disks, Text, Text) {
          record.spec.name = "named";
          record.spec.keep = true;
          record.spec.config = "{}";
        }) == *all.find(text([](Record, Disks, Text, Text) {})));
}

}  // namespace sluicebox::box::test
