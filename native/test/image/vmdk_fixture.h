// vmdk_fixture.h: what the VMDK tests share: images in memory, patterns, and qemu-img as the judge.
// Knows: the planner, the opener. Threads: one test.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "image/formats/vmdk/plan.h"
#include "image/formats/vmdk/vmdk.h"
#include "test/image/format_fixture.h"
#include "test/image/memory_file.h"
#include "test/image/qemu.h"
#include "test/image/temp_dir.h"

namespace sluicebox::image::vmdk {

using testing::check;
using testing::must;
using testing::pattern;
using testing::put;
using testing::qemu_img;
using testing::read_all;
using testing::TempDir;

inline PlanOptions disk(std::uint64_t size, std::uint64_t grain = 65536,
                        Subformat subformat = Subformat::kMonolithicSparse) {
  PlanOptions options;
  options.virtual_size = size;
  options.grain_size = grain;
  options.subformat = subformat;
  options.cid = 0x12345678;
  return options;
}

inline std::vector<std::byte> apply(const FilePlan& plan) {
  std::vector<std::byte> bytes = testing::apply(plan);
  bytes.resize(std::max<std::size_t>(bytes.size(), plan.data_bytes));
  return bytes;
}

// The file that bears the image's name.
inline std::vector<std::byte> planned(const PlanOptions& options) {
  std::vector<std::byte> scratch(must(plan_scratch_size(options)));
  return apply(must(plan_vmdk(options, scratch)).image);
}

// All files of an image, by name, the descriptor under the image's own.
inline std::map<std::string, std::vector<std::byte>> planned_files(const PlanOptions& options) {
  std::vector<std::byte> scratch(must(plan_scratch_size(options)));
  const Plan plan = must(plan_vmdk(options, scratch));
  std::map<std::string, std::vector<std::byte>> files;
  files[options.name] = apply(plan.image);
  for (std::uint64_t i = 0; i < plan.extents; ++i) files[extent_file_name(options, i)] = apply(plan.extent_plan(i));
  return files;
}

inline std::unique_ptr<Block> open_writable(File& file) { return must(open_vmdk(file, {.writable = true})); }
inline std::unique_ptr<Block> open_readable(File& file) { return must(open_vmdk(file, {})); }

inline std::vector<std::byte> get(const std::string& path) {
  const std::string text = testing::slurp(path);
  const Bytes bytes = as_bytes(text);
  return {bytes.begin(), bytes.end()};
}
inline std::string text_of(const std::vector<std::byte>& bytes) {
  std::string text(bytes.size(), '\0');
  if (!bytes.empty()) std::memcpy(text.data(), bytes.data(), bytes.size());
  return text;
}
inline std::vector<std::byte> bytes_of(const std::string& text) {
  const Bytes bytes = as_bytes(text);
  return {bytes.begin(), bytes.end()};
}

inline void must_run(const testing::RunResult& ran) {
  INFO(ran.output);
  REQUIRE(ran.exit_code == 0);
}

// Where the first table of a monolithicSparse image of this engine lies, in bytes.
inline std::size_t first_table(const std::vector<std::byte>& bytes) {
  const std::uint64_t directory = load_le64(bytes.data() + at::kDirectory) * kSectorBytes;
  return std::size_t{load_le32(bytes.data() + directory)} * kSectorBytes;
}
inline std::size_t first_redundant_table(const std::vector<std::byte>& bytes) {
  const std::uint64_t directory = load_le64(bytes.data() + at::kRedundantDirectory) * kSectorBytes;
  return std::size_t{load_le32(bytes.data() + directory)} * kSectorBytes;
}

}  // namespace sluicebox::image::vmdk
