#include <optional>

#include "test/image/vhdx_fixture.h"

namespace sluicebox::image::vhdx {
namespace {

const Guid kLogId = id_of(9);

// One change as an entry describes it: a page, or zeros.
struct Described {
  std::uint64_t offset = 0;
  std::optional<Image> page = std::nullopt;
  std::uint64_t zeros = 0;
};

struct EntryShape {
  std::uint64_t sequence = 1;
  std::uint32_t tail = 0;
  std::vector<Described> changes = {};
  std::uint64_t flushed = 0, last = 0;
};

// An entry as another writer would make it, of any number, tail and changes.
Image entry_bytes(const EntryShape& shape) {
  std::size_t pages = 0;
  for (const Described& each : shape.changes) pages += each.page ? 1 : 0;
  const std::size_t described = (64 + shape.changes.size() * 32 + 4095) / 4096;
  Image bytes((described + pages) * 4096);
  std::memcpy(bytes.data(), "loge", 4);
  store_le32(bytes.data() + 8, static_cast<std::uint32_t>(bytes.size()));
  store_le32(bytes.data() + 12, shape.tail);
  store_le64(bytes.data() + 16, shape.sequence);
  store_le32(bytes.data() + 24, static_cast<std::uint32_t>(shape.changes.size()));
  store_guid(bytes.data() + 32, kLogId);
  store_le64(bytes.data() + 48, shape.flushed);
  store_le64(bytes.data() + 56, shape.last);
  std::size_t sector = described * 4096;
  for (std::size_t i = 0; i < shape.changes.size(); ++i) {
    std::byte* descriptor = bytes.data() + 64 + i * 32;
    const Described& change = shape.changes[i];
    store_le64(descriptor + 16, change.offset);
    store_le64(descriptor + 24, shape.sequence);
    if (!change.page) {
      std::memcpy(descriptor, "zero", 4);
      store_le64(descriptor + 8, change.zeros);
      continue;
    }
    std::memcpy(descriptor, "desc", 4);
    std::memcpy(descriptor + 4, change.page->data() + 4092, 4);
    std::memcpy(descriptor + 8, change.page->data(), 8);
    std::memcpy(bytes.data() + sector, change.page->data(), 4096);
    std::memcpy(bytes.data() + sector, "data", 4);
    store_le32(bytes.data() + sector + 4, static_cast<std::uint32_t>(shape.sequence >> 32));
    store_le32(bytes.data() + sector + 4092, static_cast<std::uint32_t>(shape.sequence));
    sector += 4096;
  }
  seal(bytes, 0, bytes.size());
  return bytes;
}

// Into the ring, going on at its start.
void put_entry(Image& image, std::uint64_t at, const Image& entry) {
  for (std::size_t i = 0; i < entry.size(); ++i) image[kLogAt + (at + i) % kMiB] = entry[i];
}

// An image whose log says that block 0 lies at its end, which is not in the table yet.
Image with_log(const std::vector<EntryShape>& entries, std::uint64_t start = 0) {
  Image image = planned(disk(4 << 20));
  image.resize(kDataAt + kMiB, std::byte{0x5a});
  edit_headers(image, [](Header& header) { header.log = kLogId; });
  std::uint64_t at = start;
  for (EntryShape shape : entries) {
    if (shape.flushed == 0) shape.flushed = shape.last = image.size();
    const Image entry = entry_bytes(shape);
    put_entry(image, at, entry);
    at += entry.size();
  }
  return image;
}

Image table_page(std::uint64_t block0) {
  Image page(4096);
  store_le64(page.data(), block0);
  return page;
}
const std::uint64_t kPlaced = entry_of(BlockState::kPresent, kDataAt);

Described table_change(std::uint64_t block0 = kPlaced) { return {.offset = kTableAt, .page = table_page(block0)}; }

std::byte first_byte(Block& block) {
  Image out(1);
  must(block.read(0, out));
  return out[0];
}

}  // namespace

TEST_CASE("I49: a log is replayed in memory when read, and written back and cleared before the first write") {
  const Image image = with_log({{.changes = {table_change()}}});
  MemoryFile file(image);
  {
    auto block = open_readable(file);
    CHECK(block->info().dirty);
    CHECK(first_byte(*block) == std::byte{0x5a});
    CHECK(testing::check(*block).corruptions == 0);
    CHECK(testing::check(*block).leaks == 0);
    CHECK(must(open_vhdx(file, {.info_only = true}))->info().dirty);
    CHECK(file.bytes() == image);
  }
  {
    auto block = open_writable(file);
    CHECK(file.bytes() == image);
    must(block->write(4096, Image(512, std::byte{1})));
    CHECK(table_entry(file.bytes(), 0) == kPlaced);
    CHECK(is_nil(newest_header(file.bytes()).log));
    must(block->flush());
  }
  auto again = open_readable(file);
  CHECK_FALSE(again->info().dirty);
  CHECK(first_byte(*again) == std::byte{0x5a});
  MemoryFile repaired(image);
  testing::check(*open_writable(repaired), Repair::kLeaks);
  CHECK(table_entry(repaired.bytes(), 0) == kPlaced);
  CHECK(is_nil(newest_header(repaired.bytes()).log));
}

TEST_CASE("I49: qemu-img repairs our log to what we read of it, and refuses it as we do not") {
  const testing::TempDir directory;
  const std::string path = directory.file("a.vhdx");
  Image image = with_log({});
  const LogPage page{.offset = kTableAt, .bytes = table_page(kPlaced)};
  put_entry(image, 0, serialize_entry(std::span(&page, 1), kLogId, image.size()));
  MemoryFile file(image);
  const Image ours = testing::read_all(*open_readable(file));
  CHECK(ours[0] == std::byte{0x5a});
  testing::put(path, image);
  const testing::RunResult repaired = testing::qemu_img({"check", "-r", "all", "-f", "vhdx", path});
  CAPTURE(repaired.output);
  CHECK(repaired.exit_code == 0);
  const std::string theirs = testing::guest_bytes_by_qemu(path, "vhdx", directory.file("raw"));
  REQUIRE(theirs.size() == ours.size());
  CHECK(std::memcmp(theirs.data(), ours.data(), ours.size()) == 0);
}

TEST_CASE("I49: the sequence with the highest number counts, whole from its tail on, also around the ring's end") {
  const std::uint64_t stale = entry_of(BlockState::kZero, 0);
  // The second entry's tail is the first: both are replayed, in order.
  MemoryFile two(with_log({{.sequence = 5, .tail = 0, .changes = {table_change(stale)}},
                           {.sequence = 6, .tail = 0, .changes = {table_change()}}}));
  CHECK(first_byte(*open_readable(two)) == std::byte{0x5a});
  // Its tail is itself: the first one was done before, and something else may be there by now.
  MemoryFile one(with_log({{.sequence = 5, .changes = {{.offset = kDataAt, .page = Image(4096, std::byte{1})}}},
                           {.sequence = 6, .tail = 8192, .changes = {table_change()}}}));
  CHECK(first_byte(*open_readable(one)) == std::byte{0x5a});
  // Numbers that do not follow each other are no sequence: the higher one stands alone, and its tail is not its own.
  MemoryFile gap(with_log(
      {{.sequence = 5, .changes = {table_change()}}, {.sequence = 7, .tail = 0, .changes = {table_change(stale)}}}));
  CHECK(first_byte(*open_readable(gap)) == std::byte{0x5a});
  // Around the end.
  MemoryFile wrapped(with_log({{.sequence = 5, .tail = kMiB - 4096, .changes = {table_change(stale)}},
                               {.sequence = 6, .tail = kMiB - 4096, .changes = {table_change()}}},
                              kMiB - 4096));
  CHECK(first_byte(*open_readable(wrapped)) == std::byte{0x5a});
}

TEST_CASE("I49: an entry with a wrong checksum, number, length or id is not replayed") {
  const auto damage = [](std::size_t at, unsigned char value, bool sealed) {
    Image image = with_log({{.changes = {table_change()}}});
    image[kLogAt + at] = std::byte{value};
    if (sealed) seal(image, kLogAt, 8192);
    MemoryFile file(image);
    return first_byte(*open_readable(file));
  };
  CHECK(damage(4096 + 100, 1, false) == std::byte{0});    // the checksum
  CHECK(damage(4096 + 100, 1, true) == std::byte{0x5a});  // made right again, the change is another one
  CHECK(damage(16, 2, true) == std::byte{0});             // the entry's number, not its parts'
  CHECK(damage(64 + 24, 2, true) == std::byte{0});        // a descriptor's number
  CHECK(damage(4096 + 4, 1, true) == std::byte{0});       // a page's number
  CHECK(damage(8 + 1, 0x30, true) == std::byte{0});       // longer than its parts
  CHECK(damage(12 + 1, 0x10, true) == std::byte{0});      // a tail where no entry is
  CHECK(damage(24, 2, true) == std::byte{0});             // more changes than there are
  CHECK(damage(32, 8, true) == std::byte{0});             // another log's
  CHECK(damage(64, 'x', true) == std::byte{0});           // a descriptor of no kind
  CHECK(damage(64 + 16, 1, true) == std::byte{0});        // a place that is no page's
}

TEST_CASE("I49: a log that changes the headers, itself or what lies past the end is damage, and nothing is written") {
  const auto refused = [](const EntryShape& shape) {
    Image image = with_log({shape});
    MemoryFile file(image);
    const auto opened = open_vhdx(file, {.writable = true});
    REQUIRE_FALSE(opened.ok());
    CHECK(file.bytes() == image);
    return opened.error().code;
  };
  const Image page(4096);
  for (const std::uint64_t offset : {std::uint64_t{0}, std::uint64_t{64} << 10, std::uint64_t{188} << 10, kLogAt,
                                     kLogAt + kMiB - 4096, kDataAt + kMiB, UINT64_MAX - 4095}) {
    CAPTURE(offset);
    CHECK(refused({.changes = {{.offset = offset, .page = page}}}) == ErrorCode::kImageCorrupt);
    CHECK(refused({.changes = {{.offset = offset, .zeros = 8192}}}) == ErrorCode::kImageCorrupt);
  }
  CHECK(refused({.changes = {table_change()}, .flushed = 1 << 30, .last = 1 << 30}) == ErrorCode::kImageCorrupt);
  CHECK(refused({.changes = {table_change()}, .flushed = 4096, .last = kMaxFileBytes + 1}) == ErrorCode::kImageCorrupt);
}

TEST_CASE("I49: zeros in a log reach no further than the file, and a file that is to be longer is") {
  MemoryFile zeros(with_log({{.changes = {table_change(), {.offset = kDataAt, .zeros = std::uint64_t{1} << 50}}}}));
  CHECK(first_byte(*open_readable(zeros)) == std::byte{0});
  must(open_writable(zeros)->write(4096, Image(512)));
  CHECK(zeros.bytes().size() == kDataAt + kMiB);
  CHECK(zeros.bytes()[kDataAt] == std::byte{0});

  const std::uint64_t longer = kDataAt + 2 * kMiB;
  const std::uint64_t behind = entry_of(BlockState::kPresent, kDataAt + kMiB);
  MemoryFile file(with_log({{.changes = {table_change(behind)}, .flushed = kDataAt + kMiB, .last = longer}}));
  CHECK(first_byte(*open_readable(file)) == std::byte{0});
  CHECK(testing::check(*open_readable(file)).corruptions == 0);
  CHECK(file.bytes().size() == kDataAt + kMiB);
  must(open_writable(file)->write(0, Image(512, std::byte{3})));
  CHECK(file.bytes().size() == longer);
}

TEST_CASE("I49, I12: a ring full of sound entries, of one sequence or of none, ends and is replayed once") {
  Image image = with_log({});
  // 256 entries without changes, each the follower of the one before it, and the first of the last.
  for (std::uint64_t i = 0; i < 256; ++i) {
    put_entry(image, i * 4096,
              entry_bytes({.sequence = i + 1, .tail = 0, .flushed = image.size(), .last = image.size()}));
  }
  const Bytes ring = Bytes(image).subspan(kLogAt, kMiB);
  const auto entries = active_sequence(ring, kLogId);
  REQUIRE(entries.size() == 256);
  CHECK(entries.front().sequence == 1);
  CHECK(entries.back().sequence == 256);
  MemoryFile file(image);
  CHECK(first_byte(*open_readable(file)) == std::byte{0});
  // All with the same number, and each with the next one as its tail.
  for (std::uint64_t i = 0; i < 256; ++i) {
    const auto tail = static_cast<std::uint32_t>((i + 1) % 256 * 4096);
    put_entry(image, i * 4096, entry_bytes({.sequence = 1, .tail = tail, .flushed = 1, .last = 1}));
  }
  CHECK(active_sequence(Bytes(image).subspan(kLogAt, kMiB), kLogId).empty());
  // Heads of entries as long as the ring, in every sector.
  for (std::uint64_t i = 0; i < 256; ++i) {
    Image entry = entry_bytes({.sequence = i + 1, .tail = 0, .flushed = 1, .last = 1});
    store_le32(entry.data() + 8, kMiB);
    put_entry(image, i * 4096, entry);
  }
  CHECK(active_sequence(Bytes(image).subspan(kLogAt, kMiB), kLogId).empty());
}

TEST_CASE("I37, I49: killed while a log is written back, the image is the same, with or without it") {
  const Image image = with_log({{.changes = {table_change(), {.offset = kDataAt + 4096, .zeros = 4096}}}});
  MemoryFile untouched(image);
  const Image whole = testing::read_all(*open_readable(untouched));
  MemoryFile file(image);
  file.start_journal();
  testing::check(*open_writable(file), Repair::kLeaks);
  CHECK(is_nil(newest_header(file.bytes()).log));
  REQUIRE(file.journal().size() >= 6);
  for (std::size_t events = 0; events <= file.journal().size(); ++events) {
    for (const std::uint64_t seed : crash_seeds(events)) {
      CAPTURE(events);
      CAPTURE(seed);
      MemoryFile crashed(file.after_crash(events, seed));
      auto block = open_readable(crashed);
      REQUIRE(testing::read_all(*block) == whole);
      REQUIRE(testing::check(*block).corruptions == 0);
    }
  }
}

TEST_CASE("a log above 64 MiB, of another version, or cut short is refused where it would have to be replayed") {
  const auto opened = [](auto change) {
    Image image = with_log({{.changes = {table_change()}}});
    edit_headers(image, change);
    MemoryFile file(image);
    const auto result = open_vhdx(file, {});
    return result.ok() ? ErrorCode::kInternal : result.error().code;
  };
  CHECK(opened([](Header& header) { header.log_version = 1; }) == ErrorCode::kUnsupported);
  CHECK(opened([](Header& header) { header.log_length = 65 << 20; }) == ErrorCode::kUnsupported);
  CHECK(opened([](Header& header) { header.log_length = 8 << 20; }) == ErrorCode::kImageCorrupt);
  CHECK(opened([](Header& header) { header.log_offset = 4096; }) == ErrorCode::kImageCorrupt);
  CHECK(opened([](Header& header) { header.log_offset = UINT64_MAX << 20; }) == ErrorCode::kImageCorrupt);
}

}  // namespace sluicebox::image::vhdx
