// What the tables of many layers may take together, and what an image may claim of names.
#include "image/metadata_budget.h"

#include "image/chain.h"
#include "test/image/operation.h"
#include "test/image/qcow2_edit.h"
#include "test/image/qemu.h"
#include "test/image/temp_dir.h"

// What is allocated at the moment, where a sanitizer knows; elsewhere there is none.
extern "C" __attribute__((weak)) std::size_t __sanitizer_get_current_allocated_bytes();

namespace sluicebox::image::qcow2 {
namespace {

std::size_t heap_bytes() {
  return __sanitizer_get_current_allocated_bytes != nullptr ? __sanitizer_get_current_allocated_bytes() : 0;
}

// 64 GiB, and a cluster of data in each of the 128 regions that have an L2 table of their own.
constexpr std::uint64_t kTables = 128;
constexpr std::uint64_t kSpan = 512u << 20;
std::vector<std::byte> many_tables() {
  MemoryFile file(planned(disk(kTables * kSpan)));
  auto block = open_writable(file);
  for (std::uint64_t i = 0; i < kTables; ++i) must(block->write(i * kSpan, pattern(1 << 16, i)));
  must(block->flush());
  return file.bytes();
}

// `count` snapshots without tables of their own, each with a name of 60,000 bytes.
Image with_snapshots(std::uint32_t count) {
  Image image = planned(disk(1 << 20));
  const std::uint64_t table = (image.size() + 65535) / 65536 * 65536;
  constexpr std::uint64_t kEntry = 40 + 16 + 8 + 60000;
  image.resize(table + count * kEntry);
  put32(image, 60, count), put64(image, 64, table);
  for (std::uint32_t i = 0; i < count; ++i) {
    const std::uint64_t at = table + i * kEntry;
    put16(image, at + 12, 8), put16(image, at + 14, 60000), put32(image, at + 36, 16);
    std::fill_n(image.begin() + static_cast<std::ptrdiff_t>(at + 56), 60008, std::byte{'n'});
  }
  return image;
}

std::optional<std::uint64_t> omitted(const LayerInfo& info) {
  for (const SpecificValue& each : info.specific) {
    if (each.name == "snapshots-omitted") return std::get<std::uint64_t>(each.value);
  }
  return std::nullopt;
}

// Cancels at the n-th read, and counts on.
class CancellingFile final : public File {
 public:
  CancellingFile(const MemoryFile& file, CancelToken& cancel, std::uint64_t at)
      : file_(file), cancel_(cancel), at_(at) {}
  std::uint64_t reads() const { return reads_; }

  const std::string& path() const override { return file_.path(); }
  Result<std::uint64_t> size() const override { return file_.size(); }
  Result<std::uint64_t> allocated_bytes() const override { return file_.allocated_bytes(); }
  Result<std::size_t> read_at(std::uint64_t offset, MutableBytes out) const override {
    if (++reads_ == at_) cancel_.cancel();
    return file_.read_at(offset, out);
  }
  Status write_at(std::uint64_t, Bytes) override { return os_error(EBADF, "cannot write"); }
  Status sync() override { return os_error(EBADF, "cannot sync"); }
  Status truncate(std::uint64_t) override { return os_error(EBADF, "cannot truncate"); }
  Status allocate(std::uint64_t, std::uint64_t) override { return os_error(EBADF, "cannot allocate"); }
  Result<FileExtent> extent_at(std::uint64_t offset, std::uint64_t length) const override {
    return file_.extent_at(offset, length);
  }

 private:
  const MemoryFile& file_;
  CancelToken& cancel_;
  const std::uint64_t at_;
  mutable std::uint64_t reads_ = 0;
};

}  // namespace

TEST_CASE("I45: 128 layers that are read all over take the memory of one budget, not 128 times that of one layer") {
  MemoryFile file(many_tables());
  const std::size_t heap_before = heap_bytes();
  const auto budget = std::make_shared<MetadataBudget>();
  std::vector<std::unique_ptr<Block>> layers;
  for (int i = 0; i < 128; ++i) layers.push_back(must(open_qcow2(file, {.budget = budget})));
  std::vector<std::byte> bytes(512);
  std::size_t most = 0;
  for (std::uint64_t i = 0; i < kTables; ++i) {
    const std::vector<std::byte> expected = pattern(512, i);
    for (const auto& layer : layers) {
      must(layer->read(i * kSpan, bytes));
      REQUIRE(bytes == expected);
    }
    REQUIRE(budget->taken() <= budget->limit());
    most = std::max(most, heap_bytes());
  }
  // All tables of all layers would be 1 GiB. They were read far enough for the budget to matter.
  CHECK(budget->taken() > budget->limit() - (16u << 20));
  CHECK(most < heap_before + kMetadataBytes + (16u << 20));
  layers.clear();
  CHECK(budget->taken() == 0);
}

TEST_CASE("I45: what the budget counts is what the layers take") {
  MemoryFile file(many_tables());
  if (heap_bytes() == 0) return;
  const auto budget = std::make_shared<MetadataBudget>();
  const std::size_t before = heap_bytes();
  std::vector<std::unique_ptr<Block>> layers;
  std::vector<std::byte> bytes(512);
  for (int i = 0; i < 20; ++i) {
    layers.push_back(must(open_qcow2(file, {.budget = budget})));
    for (std::uint64_t at = 0; at < kTables; ++at) must(layers.back()->read(at * kSpan, bytes));
  }
  const std::size_t grown = heap_bytes() - before;
  CHECK(grown < budget->taken() + (2u << 20));
  CHECK(grown + (2u << 20) + 20 * (1u << 16) > budget->taken());
}

TEST_CASE("I45: layers whose tables do not fit together are refused by name, and all is given back") {
  const image::testing::TempDir directory;
  image::testing::Operation operation;
  std::string below;
  // 128 GiB in clusters of 512 bytes: an L1 table of 32 MiB each, the largest there is.
  for (int i = 0; i < 7; ++i) {
    const std::string name = "layer" + std::to_string(i);
    std::vector<std::string> words = {"create", "-q", "-u", "-f", "qcow2", "-o", "cluster_size=512"};
    if (!below.empty()) words.insert(words.end(), {"-b", below, "-F", "qcow2"});
    words.insert(words.end(), {directory.file(name), "128G"});
    REQUIRE(image::testing::qemu_img(words).exit_code == 0);
    below = name;
  }
  CHECK(operation.context.metadata->taken() == 0);
  const auto open_from = [&](const std::string& name) {
    const Layer top = open_layer(directory.file(name), DiskFormat::kQcow2, Access::kRead, operation.context).value();
    return open_backing_chain({.overlay = &top, .backing = top.block->backing()}, operation.context);
  };
  CHECK(open_from("layer3").ok());
  const auto refused = open_from("layer6");
  REQUIRE_FALSE(refused.ok());
  CHECK(refused.error().code == ErrorCode::kImageChain);
  CHECK(refused.error().message.find("192 MiB") != std::string::npos);
  CHECK(operation.context.metadata->taken() == 0);
}

TEST_CASE("I45: of snapshots' names 1 MiB is shown, and what is left out is told") {
  for (const auto& [count, shown] : {std::pair{17u, 17u}, std::pair{18u, 17u}, std::pair{300u, 17u}}) {
    CAPTURE(count);
    MemoryFile file(with_snapshots(count));
    const auto block = must(open_qcow2(file, {.info_only = true}));
    const LayerInfo info = block->info();
    CHECK(info.snapshots.size() == shown);
    std::size_t text = 0;
    for (const InternalSnapshot& each : info.snapshots) text += each.id.size() + each.name.size();
    CHECK(text <= 1u << 20);
    CHECK(omitted(info) == (count == shown ? std::optional<std::uint64_t>() : count - shown));
    CHECK(block->has_internal_snapshots());
    CHECK(open_qcow2(file, {}).ok());
  }
}

TEST_CASE("I53: a cancel while an image is opened is heard before another MiB is read") {
  Image image = with_snapshots(40);
  put32(image, 36, (4u << 20) / 8);
  put64(image, 40, image.size() / 65536 * 65536 + 65536);
  image.resize(image.size() / 65536 * 65536 + 65536 + (4u << 20));
  MemoryFile file(image);
  std::uint64_t all = ~std::uint64_t{0};
  for (std::uint64_t at = 1; at <= all; ++at) {
    CAPTURE(at);
    CancelToken cancel;
    CancellingFile cancelling(file, cancel, at);
    const auto budget = std::make_shared<MetadataBudget>();
    const auto opened = open_qcow2(cancelling, {.budget = budget, .cancel = &cancel});
    if (cancelling.reads() < at) {
      CHECK(opened.ok());
      all = cancelling.reads();
      break;
    }
    REQUIRE_FALSE(opened.ok());
    CHECK(opened.error().code == ErrorCode::kCancelled);
    CHECK(cancelling.reads() <= at + 3);  // the rest of one snapshot's entry
    CHECK(budget->taken() == 0);
  }
  CHECK(all > 40);
}

}  // namespace sluicebox::image::qcow2
