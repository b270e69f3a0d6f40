#include <functional>

#include "test/image/vmdk_fixture.h"

namespace sluicebox::image::vmdk {
namespace {

constexpr std::uint64_t kGrainBytes = 65536;

// An image with a few grains, as another writer leaves it.
std::vector<std::byte> filled_image(std::uint64_t size = 1 << 20) {
  MemoryFile file(planned(disk(size)));
  auto block = open_writable(file);
  must(block->write(0, pattern(2 * kGrainBytes, 1)));
  must(block->write(5 * kGrainBytes, pattern(kGrainBytes, 2)));
  must(block->flush());
  return file.bytes();
}

void set_entry(std::vector<std::byte>& bytes, std::size_t grain, std::uint32_t entry, bool both = true) {
  store_le32(bytes.data() + first_table(bytes) + grain * 4, entry);
  if (both) store_le32(bytes.data() + first_redundant_table(bytes) + grain * 4, entry);
}

std::uint32_t entry_of(const std::vector<std::byte>& bytes, std::size_t grain) {
  return load_le32(bytes.data() + first_table(bytes) + grain * 4);
}

std::string same_by_qemu(const std::vector<std::byte>& bytes) {
  const TempDir directory;
  put(directory.file("a.vmdk"), bytes);
  must_run(qemu_img({"check", "-q", directory.file("a.vmdk")}));
  return testing::guest_bytes_by_qemu(directory.file("a.vmdk"), "vmdk", directory.file("raw"));
}

}  // namespace

TEST_CASE("what is written into a sparse vmdk reads back, here and in qemu-img, in both grain tables") {
  const std::uint64_t size = (1 << 20) + 512 * 3;  // the last grain is cut
  MemoryFile file(planned(disk(size)));
  auto block = open_writable(file);
  std::vector<std::byte> model(size);
  const auto write = [&](std::uint64_t offset, std::size_t length, std::uint64_t seed) {
    const auto data = pattern(length, seed);
    must(block->write(offset, data));
    std::copy(data.begin(), data.end(), model.begin() + static_cast<std::ptrdiff_t>(offset));
  };
  write(3 * kGrainBytes, 2 * kGrainBytes, 1);
  write(16 * kGrainBytes, 512 * 3, 2);
  write(0, kGrainBytes, 3);
  write(3 * kGrainBytes, kGrainBytes, 4);  // in place
  must(block->write_zeros(4 * kGrainBytes, 2 * kGrainBytes));
  std::fill_n(model.begin() + 4 * kGrainBytes, 2 * kGrainBytes, std::byte{0});
  CHECK(read_all(*block) == model);  // before the flush too
  must(block->flush());
  CHECK(read_all(*open_readable(file)) == model);
  CHECK(same_by_qemu(file.bytes()) == text_of(model));
  for (std::size_t grain = 0; grain < 17; ++grain) {
    CHECK(entry_of(file.bytes(), grain) ==
          load_le32(file.bytes().data() + first_redundant_table(file.bytes()) + grain * 4));
  }
  const CheckReport report = check(*open_readable(file));
  CHECK(report.corruptions == 0);
  CHECK(report.leaks == 0);
  CHECK(report.total_clusters == 17);
  CHECK(report.allocated_clusters == 5);
  CHECK(report.image_end_offset == file.bytes().size());
}

TEST_CASE("status tells data with its place, and what is not there, without gaps") {
  MemoryFile file(filled_image());
  auto block = open_readable(file);
  const auto first = must(block->status(0, block->size()));
  CHECK(first.mapping == Mapping::kData);
  CHECK(first.length == 2 * kGrainBytes);
  REQUIRE(first.host_offset);
  CHECK(std::memcmp(file.bytes().data() + *first.host_offset, pattern(2 * kGrainBytes, 1).data(), 2 * kGrainBytes) ==
        0);
  const auto second = must(block->status(2 * kGrainBytes + 512, block->size()));
  CHECK(second.mapping == Mapping::kUnallocated);
  CHECK(second.length == 3 * kGrainBytes - 512);
  CHECK(must(block->status(5 * kGrainBytes, 512)).length == 512);
  CHECK_FALSE(block->status(block->size(), 1).ok());
}

TEST_CASE("a session of writing changes the content id once, before the first write, and reading never") {
  MemoryFile file(filled_image());
  const auto before = open_readable(file)->content_id();
  auto block = open_writable(file);
  CHECK(block->content_id() == before);
  file.start_journal();
  must(block->write(0, pattern(kGrainBytes, 9)));
  must(block->write(kGrainBytes, pattern(kGrainBytes, 10)));
  must(block->flush());
  CHECK(block->content_id() != before);
  CHECK(open_readable(file)->content_id() == block->content_id());
  // The id is durable before anything of the guest's is written.
  REQUIRE(file.journal().size() > 2);
  CHECK(file.journal()[0].offset == 512);
  CHECK(file.journal()[1].kind == MemoryFile::Event::Kind::kSync);
  std::size_t ids = 0;
  for (const auto& event : file.journal()) ids += event.kind == MemoryFile::Event::Kind::kWrite && event.offset == 512;
  CHECK(ids == 1);
}

TEST_CASE("writes must cover whole grains and stay inside the disk, and need a writable image") {
  MemoryFile file(planned(disk(1 << 20)));
  auto block = open_writable(file);
  CHECK(block->write(512, pattern(kGrainBytes, 1)).error().code == ErrorCode::kInvalidArgument);
  CHECK(block->write(0, pattern(512, 1)).error().code == ErrorCode::kInvalidArgument);
  CHECK(block->write(1 << 20, pattern(kGrainBytes, 1)).error().code == ErrorCode::kInvalidArgument);
  CHECK(block->write_zeros(~std::uint64_t{0} & ~std::uint64_t{65535}, kGrainBytes).error().code ==
        ErrorCode::kInvalidArgument);
  CHECK(open_readable(file)->write(0, pattern(kGrainBytes, 1)).error().code == ErrorCode::kInvalidArgument);
  CHECK(block->can_resize(2 << 20).error().code == ErrorCode::kUnsupported);
}

TEST_CASE("zeroed grains read as zeros, are written where the header allows, and hide what stands behind") {
  auto bytes = planned(disk(1 << 20));
  store_le32(bytes.data() + at::kVersion, 2);
  store_le32(bytes.data() + at::kFlags, 7);
  MemoryFile file(bytes);
  auto block = open_writable(file);
  must(block->write(0, pattern(kGrainBytes, 1)));
  must(block->write_zeros(kGrainBytes, 4 * kGrainBytes));
  must(block->flush());
  CHECK(must(block->status(kGrainBytes, 1 << 20)).mapping == Mapping::kZero);
  CHECK(must(block->status(kGrainBytes, 1 << 20)).length == 4 * kGrainBytes);
  CHECK(entry_of(file.bytes(), 1) == 1);
  must(block->write(2 * kGrainBytes, pattern(kGrainBytes, 2)));
  must(block->flush());
  CHECK(same_by_qemu(file.bytes()) == text_of(read_all(*block)));
  CHECK(check(*block).corruptions == 0);
}

TEST_CASE("I46: entries past the end, over metadata or shared are counted, read typed, and stop every write") {
  struct Bad {
    const char* kind;
    std::function<void(std::vector<std::byte>&)> damage;
    bool reads;
  };
  const std::vector<Bad> cases = {
      {"offset-past-end", [](auto& bytes) { set_entry(bytes, 3, 0xffffff00); }, false},
      {"grain-over-metadata", [](auto& bytes) { set_entry(bytes, 3, 0x15); }, false},
      {"grain-over-metadata", [](auto& bytes) { set_entry(bytes, 3, 1); }, false},
      {"grain-overlap", [](auto& bytes) { set_entry(bytes, 3, entry_of(bytes, 0)); }, true},
      {"grain-alignment", [](auto& bytes) { set_entry(bytes, 3, entry_of(bytes, 0) + 8); }, true},
  };
  for (const Bad& each : cases) {
    CAPTURE(each.kind);
    auto bytes = filled_image();
    each.damage(bytes);
    MemoryFile file(bytes);
    auto block = open_writable(file);
    const CheckReport report = check(*block);
    CHECK(report.corruptions == 1);
    REQUIRE_FALSE(report.problems.empty());
    CHECK(report.problems.front().kind == each.kind);
    std::vector<std::byte> grain(kGrainBytes);
    const Status read = block->read(3 * kGrainBytes, grain);
    CHECK(read.ok() == each.reads);
    if (!read.ok()) CHECK(read.error().code == ErrorCode::kImageCorrupt);
    must(block->read(0, grain));
    const Status written = block->write(0, pattern(kGrainBytes, 7));
    REQUIRE_FALSE(written.ok());
    CHECK(written.error().code == ErrorCode::kImageCorrupt);
    // Nothing but the content id was touched.
    std::fill_n(bytes.begin() + 512, 512, std::byte{0});
    std::fill_n(file.bytes().begin() + 512, 512, std::byte{0});
    CHECK(file.bytes() == bytes);
  }
}

TEST_CASE("I46: grain tables past the end, or over one another, are followed by nobody") {
  for (const bool shared : {true, false}) {
    auto bytes = planned(disk(64 << 20));
    const std::uint64_t directory = load_le64(bytes.data() + at::kDirectory) * 512;
    store_le32(bytes.data() + directory + 4, shared ? load_le32(bytes.data() + directory) : 0x7fffffff);
    MemoryFile file(bytes);
    auto block = open_writable(file);
    std::vector<std::byte> grain(kGrainBytes);
    CHECK(block->read(512 * kGrainBytes, grain).error().code == ErrorCode::kImageCorrupt);
    CHECK(block->read(0, grain).ok() == !shared);
    CHECK(block->write(0, grain).error().code == ErrorCode::kImageCorrupt);
    CHECK(check(*block).corruptions == (shared ? 2 : 1));
  }
}

TEST_CASE("I45: a small file that claims a huge directory is refused before anything is allocated") {
  auto bytes = planned(disk(1 << 20));
  store_le64(bytes.data() + at::kCapacity, (std::uint64_t{1} << 54) - 1);
  MemoryFile file(bytes);
  CHECK(open_vmdk(file, {}).error().code == ErrorCode::kImageCorrupt);
}

TEST_CASE("I50: header and descriptor that disagree, and files that are only a part, have their errors") {
  const auto good = planned(disk(1 << 20));
  const auto opened = [](std::vector<std::byte> bytes) {
    MemoryFile file(std::move(bytes));
    const auto block = open_vmdk(file, {});
    REQUIRE_FALSE(block.ok());
    return block.error().code;
  };
  const auto with_text = [&](const std::string& from, const std::string& to) {
    auto bytes = good;
    std::string text = text_of({bytes.begin() + 512, bytes.begin() + 21 * 512});
    text.replace(text.find(from), from.size(), to);
    text.resize(20 * 512);
    const auto changed = bytes_of(text);
    std::copy(changed.begin(), changed.end(), bytes.begin() + 512);
    return bytes;
  };
  CHECK(opened(with_text("RW 2048", "RW 4096")) == ErrorCode::kImageCorrupt);
  CHECK(opened(with_text("RW 2048", "RW 1024")) == ErrorCode::kImageCorrupt);
  CHECK(opened(with_text("monolithicSparse", "streamOptimized")) == ErrorCode::kImageCorrupt);
  CHECK(opened(with_text("monolithicSparse", "monolithicFlat")) == ErrorCode::kImageCorrupt);
  CHECK(opened(with_text("RW 2048 SPARSE \"disk.vmdk\"", "RW 2048 FLAT \"disk.vmdk\" 0")) == ErrorCode::kImageCorrupt);
  CHECK(opened(with_text("RW 2048", "RW 8 ZERO\nRW 2040")) == ErrorCode::kImageCorrupt);
  auto part = planned_files(disk(1 << 20, 65536, Subformat::kTwoGbMaxExtentSparse)).at("disk-s001.vmdk");
  CHECK(opened(part) == ErrorCode::kImageFormat);
  // As QEMU makes parts: with a place for a descriptor, and none there.
  store_le64(part.data() + at::kDescriptorOffset, 1);
  store_le64(part.data() + at::kDescriptorSize, 20);
  CHECK(opened(part) == ErrorCode::kImageFormat);
  CHECK(opened(bytes_of("KDMV")) == ErrorCode::kImageCorrupt);
  CHECK(opened({}) == ErrorCode::kImageFormat);
  auto cut = good;
  cut.resize(22 * 512 + 100);
  CHECK(opened(cut) == ErrorCode::kImageCorrupt);
  cut.resize(600);
  CHECK(opened(cut) == ErrorCode::kImageCorrupt);
  // Rounded up to whole grains, as VirtualBox does.
  auto rounded = with_text("RW 2048", "RW 2000");
  MemoryFile file(rounded);
  CHECK(open_readable(file)->size() == 1 << 20);
}

TEST_CASE("a disk of several files shows each where its descriptor says, zeros between") {
  std::map<std::string, MemoryFile> files;
  files.emplace("flat", MemoryFile(pattern(8192, 1)));
  auto sparse = planned_files(disk(1 << 20, 4096, Subformat::kTwoGbMaxExtentSparse)).at("disk-s001.vmdk");
  files.emplace("sparse", MemoryFile(sparse));
  const auto opener = [&](const std::string& name) -> Result<File*> {
    const auto found = files.find(name);
    if (found == files.end()) return Error(ErrorCode::kImageNotFound, "there is no " + name);
    return &found->second;
  };
  const std::string head =
      "# Disk DescriptorFile\nversion=1\nCID=00000005\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n";
  const auto open_text = [&](const std::string& extents, bool writable = false) {
    static MemoryFile descriptor;
    descriptor = MemoryFile(bytes_of(head + extents));
    return open_vmdk(descriptor, {.writable = writable, .open_extent = opener});
  };
  auto block =
      must(open_text("RW 8 FLAT \"flat\" 8\nRW 8 ZERO\nRW 2048 SPARSE \"sparse\"\nRW 8 VMFS \"flat\"\n", true));
  CHECK(block->size() == 24 * 512 + (1 << 20));
  must(block->write(16 * 512, pattern(8192, 3)));
  must(block->flush());
  const auto all = read_all(*block);
  const auto flat = pattern(8192, 1);
  CHECK(std::memcmp(all.data(), flat.data() + 4096, 4096) == 0);
  CHECK(all_zero(Bytes(all).subspan(4096, 4096)));
  CHECK(std::memcmp(all.data() + 8192, pattern(8192, 3).data(), 8192) == 0);
  CHECK(std::memcmp(all.data() + all.size() - 4096, flat.data(), 4096) == 0);
  CHECK(must(block->status(4096, 8192)).mapping == Mapping::kZero);
  CHECK(block->write(4096, pattern(4096, 1)).error().code == ErrorCode::kUnsupported);

  CHECK(open_text("RW 8 FLAT \"flat\" 0\nRW 8 FLAT \"flat\" 4\n").error().code == ErrorCode::kImageCorrupt);
  CHECK(open_text("RW 8 FLAT \"flat\" 9\n").error().code == ErrorCode::kImageCorrupt);
  CHECK(open_text("RW 2048 SPARSE \"sparse\"\nRW 2048 SPARSE \"sparse\"\n").error().code == ErrorCode::kImageCorrupt);
  CHECK(open_text("RW 8 FLAT \"sparse\" 0\nRW 2048 SPARSE \"sparse\"\n").error().code == ErrorCode::kImageCorrupt);
  CHECK(open_text("RW 4096 SPARSE \"sparse\"\n").error().code == ErrorCode::kImageCorrupt);
  CHECK(open_text("RW 8 SPARSE \"flat\"\n").error().code == ErrorCode::kImageFormat);
  CHECK(open_text("RW 8 FLAT \"none\" 0\n").error().code == ErrorCode::kImageNotFound);
  MemoryFile alone(bytes_of(head + "RW 8 FLAT \"flat\" 0\n"));
  CHECK(open_vmdk(alone, {}).error().code == ErrorCode::kUnsupported);
  CHECK(open_vmdk(alone, {.open_extent = [&](const std::string&) -> Result<File*> { return &alone; }}).error().code ==
        ErrorCode::kImageCorrupt);
}

TEST_CASE("images that track their changes are read and not written") {
  auto bytes = filled_image();
  store_le32(bytes.data() + at::kVersion, 3);
  MemoryFile file(bytes);
  CHECK(open_readable(file)->read(0, MutableBytes(bytes).first(512)).ok());
  CHECK(open_writable(file)->write(0, pattern(kGrainBytes, 1)).error().code == ErrorCode::kUnsupported);
}

TEST_CASE("I36: check repairs the tables from one another, cuts what leaked, and writes nothing unasked") {
  const auto good = filled_image();
  auto bytes = good;
  set_entry(bytes, 5, 0xfffffff0, false);                              // the table is wrong
  store_le32(bytes.data() + first_redundant_table(bytes) + 0, 0x300);  // the redundant one differs
  store_le32(bytes.data() + first_redundant_table(bytes) + 4, 0);      // and is behind
  bytes.resize(bytes.size() + 3 * kGrainBytes);                        // grains that nobody has
  MemoryFile file(bytes);
  {
    auto block = open_readable(file);
    const CheckReport report = check(*block);
    CHECK(report.corruptions == 3);  // grain 5: the tables differ, and its entry leads nowhere
    CHECK(report.leaks == 5);        // and that makes its grain one that nobody has
    CHECK(file.bytes() == bytes);
  }
  {
    MemoryFile leaks(bytes);
    auto block = must(open_vmdk(leaks, {.writable = true, .for_repair = true}));
    const CheckReport report = check(*block, Repair::kLeaks);
    CHECK(report.corruptions == 3);
    CHECK(report.corruptions_fixed == 0);
    CHECK(leaks.bytes().size() == bytes.size());  // not every grain was found, so nothing is cut
  }
  auto block = must(open_vmdk(file, {.writable = true, .for_repair = true}));
  const CheckReport fixed = check(*block, Repair::kAll);
  CHECK(fixed.corruptions == 0);
  CHECK(fixed.corruptions_fixed == 2);
  CHECK(fixed.leaks == 0);
  CHECK(fixed.leaks_fixed == 4);
  CHECK(file.bytes() == good);
  CHECK(check(*block).corruptions == 0);
}

TEST_CASE("emptied, an image shows nothing of its own and is as long as when it was new") {
  MemoryFile file(filled_image());
  auto block = open_writable(file);
  must(block->make_empty());
  CHECK(all_zero(read_all(*block)));
  CHECK(file.bytes().size() == planned(disk(1 << 20)).size());
  must(block->write(0, pattern(kGrainBytes, 3)));
  must(block->flush());
  CHECK(check(*block).leaks == 0);
}

TEST_CASE("what is abandoned leaves the file as it was flushed") {
  MemoryFile file(filled_image());
  auto block = open_writable(file);
  must(block->write(8 * kGrainBytes, pattern(kGrainBytes, 3)));
  const auto size = file.bytes().size();
  block->abandon();
  must(block->flush());
  CHECK(file.bytes().size() == size - kGrainBytes);
  CHECK(check(*open_readable(file)).leaks == 0);
  CHECK(must(open_readable(file)->status(8 * kGrainBytes, 512)).mapping == Mapping::kUnallocated);
}

}  // namespace sluicebox::image::vmdk
