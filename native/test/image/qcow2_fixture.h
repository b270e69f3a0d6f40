// qcow2_fixture.h: what the qcow2 tests share: images in memory, patterns, and qemu-img as the judge.
// Knows: the planner, the opener, qemu-img on the PATH. Threads: one test.
#pragma once

#include <doctest/doctest.h>
#include <stdlib.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "image/formats/qcow2/plan.h"
#include "image/formats/qcow2/qcow2.h"
#include "test/image/format_fixture.h"
#include "test/image/memory_file.h"

namespace sluicebox::image::qcow2 {

using testing::check;
using testing::must;
using testing::pattern;
using testing::read_all;

inline std::vector<std::byte> planned(const PlanOptions& options) {
  std::vector<std::byte> scratch(must(plan_scratch_size(options)));
  return testing::apply(must(plan_qcow2(options, scratch)));
}

inline PlanOptions disk(std::uint64_t size, std::uint64_t cluster_size = 65536) {
  PlanOptions options;
  options.virtual_size = size;
  options.cluster_size = cluster_size;
  return options;
}

inline std::unique_ptr<Block> open_writable(File& file) { return must(open_qcow2(file, {.writable = true})); }
inline std::unique_ptr<Block> open_readable(File& file) { return must(open_qcow2(file, {})); }

// A directory that goes away with the test.
class Scratch {
 public:
  Scratch() {
    std::string name = (std::filesystem::temp_directory_path() / "sluicebox-qcow2-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    directory_ = name;
  }
  ~Scratch() {
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  std::string path(const std::string& name) const { return (directory_ / name).string(); }

  std::string put(const std::string& name, const std::vector<std::byte>& bytes) const {
    std::ofstream out(path(name), std::ios::binary);
    out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));  // byte to char
    REQUIRE(out.good());
    return path(name);
  }
  std::vector<std::byte> get(const std::string& name) const {
    std::ifstream in(path(name), std::ios::binary | std::ios::ate);
    REQUIRE(in.good());
    std::vector<std::byte> bytes(static_cast<std::size_t>(in.tellg()));
    in.seekg(0);
    in.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));  // byte to char
    return bytes;
  }

 private:
  std::filesystem::path directory_;
};

struct Ran {
  int status = -1;
  std::string output;
};
inline Ran run(const std::string& command) {
  Ran ran;
  FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  REQUIRE(pipe != nullptr);
  std::array<char, 4096> buffer;
  for (std::size_t had = 0; (had = fread(buffer.data(), 1, buffer.size(), pipe)) > 0;) {
    ran.output.append(buffer.data(), had);
  }
  const int raw = pclose(pipe);
  ran.status = WIFEXITED(raw) ? WEXITSTATUS(raw) : -1;
  return ran;
}
inline std::string must_run(const std::string& command) {
  const Ran ran = run(command);
  if (ran.status != 0) FAIL(command, " exits ", ran.status, ": ", ran.output);
  return ran.output;
}

}  // namespace sluicebox::image::qcow2
