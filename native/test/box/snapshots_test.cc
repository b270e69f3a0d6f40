#include "box/snapshots.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "test/image/temp_dir.h"

namespace sluicebox::box::test {

namespace {

using image::testing::TempDir;

struct BoxFolder {
  TempDir folder;
  UniqueFd directory{::open(folder.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};

  void touch(const std::string& name) const { std::ofstream(folder.file(name)) << "bytes"; }
  bool has(const std::string& name) const { return ::access(folder.file(name).c_str(), F_OK) == 0; }
  FileFacts facts(const std::string& name) const {
    struct stat file{};
    ::stat(folder.file(name).c_str(), &file);
    return {.path = folder.file(name), .device = file.st_dev, .inode = file.st_ino, .own = true};
  }
  SnapshotRecord add(const std::string& name, const std::string& overlay, std::int64_t at = 1) const {
    SnapshotRecord record;
    record.id = new_box_id().value();
    record.name = name;
    record.created_at_ms = at;
    record.disks.push_back({.overlay = overlay, .bases = {facts("base.raw")}, .size = 512});
    REQUIRE(begin_snapshot(directory.get(), record.id).ok());
    REQUIRE(finish_snapshot(directory.get(), record).ok());
    return record;
  }
};

}  // namespace

TEST_CASE("B13: of snapshots only those that are whole are listed, and the rest goes") {
  const BoxFolder box;
  CHECK(list_snapshots(box.directory.get()).value().empty());
  box.touch("base.raw");
  const SnapshotRecord late = box.add("late", "disk0-1.qcow2", 2);
  const SnapshotRecord early = box.add("early", "disk0.qcow2", 1);
  const std::string half = new_box_id().value();
  REQUIRE(begin_snapshot(box.directory.get(), half).ok());
  const auto list = list_snapshots(box.directory.get()).value();
  REQUIRE(list.size() == 2);
  CHECK(list[0].name == "early");
  CHECK(list[1].id == late.id);
  CHECK(list[1].disks[0].bases[0].own);
  CHECK(find_snapshot(box.directory.get(), early.id).value().name == "early");
  CHECK(find_snapshot(box.directory.get(), "none").error().code == ErrorCode::kSnapshotNotFound);
  drop_half_made(box.directory.get());
  CHECK(!box.has("snapshots/" + half));
  CHECK(box.has("snapshots/" + late.id));
}

TEST_CASE(
    "B22: a layer goes when neither the box nor a snapshot lies on it, and none while a snapshot cannot be read") {
  const BoxFolder box;
  for (const char* name : {"base.raw", "disk0.qcow2", "disk0-1.qcow2", "disk0-2.qcow2", "stepx.qcow2"}) box.touch(name);
  const SnapshotRecord kept = box.add("kept", "disk0.qcow2");
  BoxRecord record;
  DiskRecord& disk = record.disks.emplace_back();
  disk.overlay = "disk0-2.qcow2";
  disk.bases.push_back(box.facts("disk0.qcow2"));
  const std::string file = "snapshots/" + kept.id + "/snapshot.json";
  std::ofstream(box.folder.file(file)) << "{\"version\": 2}";
  drop_unused_layers(box.directory.get(), record);
  CHECK(box.has("disk0-1.qcow2"));
  REQUIRE(finish_snapshot(box.directory.get(), kept).ok());
  drop_unused_layers(box.directory.get(), record);
  CHECK(!box.has("disk0-1.qcow2"));
  CHECK(!box.has("stepx.qcow2"));
  for (const char* name : {"base.raw", "disk0.qcow2", "disk0-2.qcow2"}) CHECK(box.has(name));
  CHECK(free_layer_name(box.directory.get(), 0) == "disk0-1.qcow2");
  CHECK(is_own(box.directory.get(), box.facts("disk0.qcow2")));
}

}  // namespace sluicebox::box::test
