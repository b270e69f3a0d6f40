#include "test/image/vmdk_fixture.h"

namespace sluicebox::image::vmdk {
namespace {

constexpr std::uint64_t kPlanGrains[] = {4096, 8192, 65536};

template <typename Visit>
void for_every_vmdk_shape(Visit visit) {
  for (const Subformat subformat : kSubformats) {
    for (const std::uint64_t grain : kPlanGrains) {
      for (const std::uint64_t size : {std::uint64_t{512}, std::uint64_t{65536 + 512}, std::uint64_t{5} << 30}) {
        for (const Adapter adapter : kAdapters) {
          const bool flat = subformat == Subformat::kMonolithicFlat || subformat == Subformat::kTwoGbMaxExtentFlat;
          PlanOptions options = disk(size, grain, subformat);
          options.adapter = adapter;
          if (adapter == Adapter::kLsiLogic && !flat) {
            options.parent_hint = "the parent.vmdk";
            options.parent_cid = 0xabcdef01;
          }
          CAPTURE(subformat_name(subformat));
          CAPTURE(grain);
          CAPTURE(size);
          visit(options);
        }
      }
    }
  }
}

ErrorCode vmdk_refusal(const PlanOptions& options, const char* key) {
  const auto size = plan_scratch_size(options);
  REQUIRE_FALSE(size.ok());
  CAPTURE(size.error().message);
  CHECK(size.error().message.find(key) != std::string::npos);
  return size.error().code;
}

void check_file_plan(const FilePlan& plan) {
  std::vector<ImagePlanWrite> writes(plan.all().begin(), plan.all().end());
  std::ranges::sort(writes, {}, &ImagePlanWrite::offset);
  std::uint64_t sum = 0;
  std::uint64_t end = 0;
  for (const ImagePlanWrite& write : writes) {
    CHECK(write.offset >= end);
    end = write.offset + write.bytes.size();
    sum += write.bytes.size();
  }
  CHECK(sum == plan.total_metadata_bytes);
  CHECK(end == plan.minimum_file_size);
}

}  // namespace

TEST_CASE("I1, I2, I3, I4: the bookkeeping of every vmdk plan") {
  for_every_vmdk_shape([](const PlanOptions& options) {
    std::vector<std::byte> scratch(must(plan_scratch_size(options)));
    const Plan plan = must(plan_vmdk(options, scratch));
    std::size_t writes = 0;
    for (const FilePlan* file : {&plan.image, &plan.extent, &plan.last_extent}) {
      check_file_plan(*file);
      writes += file->write_count;
    }
    CHECK(writes <= 96);
  });
}

TEST_CASE("I5, I6: the planned bytes are the image asked for, clean, and qemu-img agrees") {
  std::size_t shapes = 0;
  for_every_vmdk_shape([&](const PlanOptions& options) {
    const bool flat =
        options.subformat == Subformat::kMonolithicFlat || options.subformat == Subformat::kTwoGbMaxExtentFlat;
    if (flat && options.virtual_size > (16u << 20)) return;  // gigabytes of nothing to parse
    const TempDir directory;
    // A process, and its files on a disk, take longer than all else; five divides none of what the shapes vary in.
    const bool ask_qemu = options.parent_hint.empty() && (testing::is_thorough() || shapes++ % 5 == 0);
    std::map<std::string, MemoryFile> files;
    for (auto& [name, bytes] : planned_files(options)) {
      if (ask_qemu) put(directory.file(name), bytes);
      files.emplace(name, std::move(bytes));
    }
    auto block =
        must(open_vmdk(files.at(options.name),
                       {.open_extent = [&](const std::string& name) -> Result<File*> { return &files.at(name); }}));
    CHECK(block->size() == options.virtual_size);
    CHECK(block->content_id() == "12345678");
    CHECK(block->backing().has_value() == !options.parent_hint.empty());
    if (block->backing()) {
      CHECK(block->backing() ==
            BackingReference{.path = "the parent.vmdk", .format = "vmdk", .content_id = "abcdef01"});
    }
    const CheckReport report = check(*block);
    CHECK(report.corruptions == 0);
    CHECK(report.leaks == 0);
    if (!ask_qemu) return;
    const auto seen = qemu_img({"info", "--output=json", directory.file(options.name)});
    CAPTURE(seen.output);
    CHECK(seen.exit_code == 0);
    CHECK(seen.output.find("\"virtual-size\": " + std::to_string(options.virtual_size)) != std::string::npos);
    CHECK(seen.output.find(std::string("\"create-type\": \"") + subformat_name(options.subformat)) !=
          std::string::npos);
  });
}

TEST_CASE("I6: a planned monolithicSparse image is qemu-img's own but for the descriptor's text") {
  const TempDir directory;
  for (const std::uint64_t size : {std::uint64_t{512}, std::uint64_t{1} << 30, std::uint64_t{5} << 30}) {
    must_run(qemu_img({"create", "-q", "-f", "vmdk", directory.file("theirs.vmdk"), std::to_string(size)}));
    auto theirs = get(directory.file("theirs.vmdk"));
    auto ours = planned(disk(size));
    REQUIRE(ours.size() == theirs.size());
    for (auto* bytes : {&ours, &theirs}) std::fill(bytes->begin() + 512, bytes->begin() + 21 * 512, std::byte{0});
    CHECK(ours == theirs);
  }
}

TEST_CASE("I7: equal options give equal bytes") {
  for_every_vmdk_shape([](const PlanOptions& options) {
    std::vector<std::byte> one(must(plan_scratch_size(options)), std::byte{0x11});
    std::vector<std::byte> other(one.size(), std::byte{0x22});
    must(plan_vmdk(options, one));
    must(plan_vmdk(options, other));
    CHECK(one == other);
  });
}

TEST_CASE("I8: one byte of scratch too little is refused and nothing beyond it is written; 32 MiB suffice") {
  for_every_vmdk_shape([](const PlanOptions& options) {
    const std::size_t need = must(plan_scratch_size(options));
    std::vector<std::byte> scratch(need + 16, std::byte{0x5a});
    const auto refused = plan_vmdk(options, MutableBytes(scratch).first(need - 1));
    REQUIRE_FALSE(refused.ok());
    CHECK(refused.error().code == ErrorCode::kInvalidArgument);
    must(plan_vmdk(options, MutableBytes(scratch).first(need)));
    CHECK(std::all_of(scratch.begin() + static_cast<std::ptrdiff_t>(need), scratch.end(),
                      [](std::byte each) { return each == std::byte{0x5a}; }));
  });
  // The largest of each kind with the smallest grain.
  CHECK(must(plan_scratch_size(disk((std::uint64_t{2} << 40) - (std::uint64_t{16} << 30), 4096))) <=
        kImagePlanScratchBytes);
  CHECK(must(plan_scratch_size(disk(std::uint64_t{2} << 40, 4096, Subformat::kTwoGbMaxExtentSparse))) <=
        kImagePlanScratchBytes);
}

TEST_CASE("I9: grains of 4 to 64 KiB, powers of two; else the key is named") {
  for (const std::uint64_t grain : {0u, 512u, 2048u, 4095u, 5000u, 131072u}) {
    CHECK(vmdk_refusal(disk(1 << 20, grain), "grainSize") == ErrorCode::kInvalidArgument);
  }
}

TEST_CASE("I10: sizes at the limits are a valid image or a typed error") {
  for (const Subformat subformat : kSubformats) {
    CAPTURE(subformat_name(subformat));
    CHECK(vmdk_refusal(disk(0, 65536, subformat), "size") == ErrorCode::kInvalidArgument);
    CHECK(vmdk_refusal(disk(1, 65536, subformat), "size") == ErrorCode::kInvalidArgument);
    CHECK(vmdk_refusal(disk(~std::uint64_t{0}, 65536, subformat), "size") == ErrorCode::kInvalidArgument);
    CHECK(vmdk_refusal(disk(~std::uint64_t{511}, 65536, subformat), "size") == ErrorCode::kInvalidArgument);
    CHECK(vmdk_refusal(disk(std::uint64_t{1} << 63, 65536, subformat), "size") == ErrorCode::kInvalidArgument);
  }
  const std::uint64_t two_tib = std::uint64_t{2} << 40;
  CHECK(vmdk_refusal(disk(two_tib), "size") == ErrorCode::kInvalidArgument);
  // Just as much as leaves room for the tables: 32768 of them, twice, and two directories.
  const std::uint64_t overhead = load_le64(planned(disk(std::uint64_t{1} << 30)).data() + at::kOverhead);
  CHECK(overhead == 384);
  CHECK(plan_scratch_size(disk(two_tib - (std::uint64_t{1} << 30))).ok());
  CHECK(plan_scratch_size(disk(two_tib, 65536, Subformat::kTwoGbMaxExtentSparse)).ok());
  CHECK(vmdk_refusal(disk(two_tib + 512, 65536, Subformat::kTwoGbMaxExtentSparse), "size") ==
        ErrorCode::kInvalidArgument);
  CHECK(plan_scratch_size(disk(two_tib * 1024, 65536, Subformat::kMonolithicFlat)).ok());
}

TEST_CASE("I9: names and parents that a descriptor cannot hold are refused before anything is planned") {
  PlanOptions options = disk(1 << 20);
  options.name = "a\"b.vmdk";
  CHECK(vmdk_refusal(options, "path") == ErrorCode::kInvalidArgument);
  options.name = "a\nb.vmdk";
  CHECK(vmdk_refusal(options, "path") == ErrorCode::kInvalidArgument);
  options = disk(1 << 20);
  options.parent_cid = 1;
  CHECK(vmdk_refusal(options, "backing") == ErrorCode::kInvalidArgument);
  options.parent_hint = std::string(1024, 'p');
  CHECK(vmdk_refusal(options, "1023") == ErrorCode::kInvalidArgument);
  options.parent_hint = std::string(1023, 'p');
  CHECK(plan_scratch_size(options).ok());
  options.parent_hint = "a\"b";
  CHECK(vmdk_refusal(options, "backing") == ErrorCode::kInvalidArgument);
  options.parent_hint = "parent";
  options.parent_cid = kNoParent;
  CHECK(vmdk_refusal(options, "backing") == ErrorCode::kInvalidArgument);
  options.parent_cid = 7;
  options.subformat = Subformat::kMonolithicFlat;
  CHECK(vmdk_refusal(options, "backing") == ErrorCode::kUnsupported);
}

}  // namespace sluicebox::image::vmdk
