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
#include "test/image/memory_file.h"
#include "test/image/qemu.h"
#include "test/image/temp_dir.h"

namespace sluicebox::image::vmdk {

using testing::qemu_img;
using testing::TempDir;

template <typename T>
T must(Result<T> result) {
  if (!result.ok()) FAIL(error_code_name(result.error().code), ": ", result.error().message);
  return std::move(result).value();
}
inline void must(Status status) {
  if (!status.ok()) FAIL(error_code_name(status.error().code), ": ", status.error().message);
}

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
  std::vector<std::byte> bytes(std::max(plan.minimum_file_size, plan.data_bytes));
  for (const ImagePlanWrite& write : plan.all()) {
    std::copy(write.bytes.begin(), write.bytes.end(), bytes.begin() + static_cast<std::ptrdiff_t>(write.offset));
  }
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

// Bytes that differ by place and by seed, and compress little.
inline std::vector<std::byte> pattern(std::size_t bytes, std::uint64_t seed) {
  std::vector<std::byte> out(bytes);
  std::uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
  for (std::byte& byte : out) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    byte = static_cast<std::byte>(state >> 56);
  }
  return out;
}

inline std::vector<std::byte> read_all(Block& block) {
  std::vector<std::byte> out(block.size());
  must(block.read(0, out));
  return out;
}

inline CheckReport check(Block& block, Repair repair = Repair::kNone) {
  NoProgress progress;
  const CancelToken cancel;
  return must(block.check(repair, progress, cancel));
}

inline void put(const std::string& path, const std::vector<std::byte>& bytes) {
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));  // byte to char
  REQUIRE(out.good());
}
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
