#include "test/image/qcow2_edit.h"

namespace sluicebox::image::qcow2 {
namespace {

// 4 MiB in 64 KiB clusters, 10 of them written.
Image written_for_repair() {
  MemoryFile file(planned(disk(4 << 20)));
  auto block = open_writable(file);
  must(block->write(0, pattern(10 << 16, 5)));
  must(block->flush());
  return file.bytes();
}

// Repairs `image`; qemu-img then reads the same disk as it read before.
void repair_keeps(const Image& image, Repair repair) {
  const Scratch scratch;
  const auto disk_of = [&](const Image& bytes) {
    const std::string path = scratch.put("image", bytes);
    must_run("qemu-img convert -f qcow2 -O raw " + path + " " + scratch.path("disk"));
    return scratch.get("disk");
  };
  const auto before = disk_of(image);
  MemoryFile file(image);
  check(*must(open_qcow2(file, {.writable = true, .for_repair = true})), repair);
  CHECK(disk_of(file.bytes()) == before);
}

}  // namespace

TEST_CASE("I36: a refcount table entry that names a guest's cluster makes no repair write there") {
  for (const Repair repair : {Repair::kLeaks, Repair::kAll}) {
    CAPTURE(static_cast<int>(repair));
    Image image = written_for_repair();
    put64(image, get64(image, 48) + 8, data_of(image, 0));
    repair_keeps(image, repair);
    if (repair == Repair::kLeaks) continue;
    MemoryFile file(image);
    auto block = must(open_qcow2(file, {.writable = true, .for_repair = true}));
    check(*block, repair);
    CHECK(check(*block, repair).corruptions == 0);
    std::vector<std::byte> back(10 << 16);
    must(block->read(0, back));
    CHECK(back == pattern(10 << 16, 5));
    const Scratch scratch;
    must_run("qemu-img check -q " + scratch.put("a", file.bytes()));
  }
}

TEST_CASE("I36: so it is for a table that only a snapshot uses, and for two entries that name one block") {
  const Scratch scratch;
  const std::string path = scratch.put("a", written_for_repair());
  must_run("qemu-img snapshot -c one " + path);
  must_run("qemu-io -c 'write -P 7 0 640k' " + path);
  const Image image = scratch.get("a");
  const std::uint64_t snapshot_l1 = get64(image, get64(image, 64));
  for (const std::uint64_t target : {get64(image, snapshot_l1) & kOffsetMask, get64(image, get64(image, 48))}) {
    for (const Repair repair : {Repair::kLeaks, Repair::kAll}) {
      Image harmed = image;
      put64(harmed, get64(image, 48) + 8, target);
      repair_keeps(harmed, repair);
      MemoryFile file(harmed);
      check(*must(open_qcow2(file, {.writable = true, .for_repair = true})), repair);
      const std::string repaired = scratch.put("b", file.bytes());
      must_run("qemu-img convert -l one -f qcow2 -O raw " + repaired + " " + scratch.path("disk"));
      const auto shown = scratch.get("disk");
      const auto wanted = pattern(10 << 16, 5);
      CHECK(std::equal(wanted.begin(), wanted.end(), shown.begin()));
    }
  }
}

TEST_CASE("I36: a table that an L2 entry names as its data is not changed by a repair of flags") {
  Image image = written_for_repair();
  put64(image, l2_of(image) + 8, l2_of(image) | kEntryCopied);
  const Image table(image.begin() + static_cast<std::ptrdiff_t>(l2_of(image)),
                    image.begin() + static_cast<std::ptrdiff_t>(l2_of(image) + 65536));
  for (const Repair repair : {Repair::kLeaks, Repair::kAll}) {
    MemoryFile file(image);
    const CheckReport report = check(*must(open_qcow2(file, {.writable = true, .for_repair = true})), repair);
    CHECK(report.corruptions > 0);
    CHECK(std::equal(table.begin(), table.end(), file.bytes().begin() + static_cast<std::ptrdiff_t>(l2_of(image))));
  }
}

}  // namespace sluicebox::image::qcow2
