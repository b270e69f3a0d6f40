// chain_fixture.h: a chain of images, each on the one before, made by qemu-img; and what may be asked of it afterwards.
// Knows: qemu-img, qemu-io, this engine's check and reads. Threads: one test.
#pragma once

#include <doctest/doctest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "image/ops/check.h"
#include "test/image/fault_file.h"
#include "test/image/operation.h"
#include "test/image/qemu.h"
#include "test/image/temp_dir.h"

namespace sluicebox::image::testing {

inline constexpr const char* kSnapshot = "kept";

struct LayerShape {
  std::string format = "qcow2";
  std::string options;  // of a new qcow2 image
  std::uint64_t size = 4u << 20;
  std::vector<std::string> writes = {};  // of qemu-io; kSnapshot: one is taken, of that name
};

inline LayerShape qcow2_layer(std::uint64_t size, std::string options, std::vector<std::string> writes) {
  return {.format = "qcow2", .options = std::move(options), .size = size, .writes = std::move(writes)};
}
inline LayerShape raw_layer(std::uint64_t size, std::vector<std::string> writes) {
  return {.format = "raw", .options = "", .size = size, .writes = std::move(writes)};
}

// The layers are files named 0, 1, … and refer to each other by these names alone, so that a folder of them is a copy.
class ChainFixture {
 public:
  explicit ChainFixture(std::vector<LayerShape> layers) : layers_(std::move(layers)) {
    std::filesystem::create_directory(folder_);
    for (std::size_t i = 0; i < layers_.size(); ++i) make(i);
  }

  std::string path(std::size_t layer) const { return folder_ + "/" + std::to_string(layer); }
  std::string top() const { return path(layers_.size() - 1); }
  const std::string& top_format() const { return layers_.back().format; }
  const std::string& format(std::size_t layer) const { return layers_[layer].format; }
  // What a guest sees of the layer, and nobody changes.
  std::string bytes(std::size_t layer) const {
    return guest_bytes_by_qemu(path(layer), format(layer), directory_.file("scratch.raw"));
  }
  std::string bytes_of_top() const { return bytes(layers_.size() - 1); }
  // The images are as they were when this was called.
  void keep() { copy(folder_, directory_.file("kept")); }
  void restore() { copy(directory_.file("kept"), folder_); }
  std::size_t size() const { return layers_.size(); }

  static void must(const RunResult& outcome) {
    INFO(outcome.output);
    REQUIRE(outcome.exit_code == 0);
  }

  // Opens, and checks without corruption; leaks too, unless they may be there.
  void require_sound(std::size_t layer, bool may_leak, bool ask_qemu) const {
    if (format(layer) == "raw") return;
    Operation operation;
    const Result<CheckReport> report = check_image(path(layer), {}, operation.context);
    INFO((report.ok() ? "" : report.error().message));
    REQUIRE(report.ok());
    INFO((report.value().problems.empty() ? "" : report.value().problems.front().message));
    REQUIRE(report.value().corruptions == 0);
    if (!may_leak) REQUIRE(report.value().leaks == 0);
    if (!ask_qemu) return;
    const RunResult checked = qemu_img({"check", path(layer)});
    INFO(checked.output);
    REQUIRE((checked.exit_code == 0 || (may_leak && checked.exit_code == 3)));
  }

 private:
  void make(std::size_t layer) const {
    const LayerShape& shape = layers_[layer];
    std::vector<std::string> arguments = {"create", "-q", "-f", shape.format};
    if (layer != 0) {
      arguments.insert(arguments.end(), {"-b", std::to_string(layer - 1), "-F", layers_[layer - 1].format});
    }
    if (!shape.options.empty()) arguments.insert(arguments.end(), {"-o", shape.options});
    arguments.insert(arguments.end(), {path(layer), std::to_string(shape.size)});
    must(qemu_img(arguments));
    for (const std::string& write : shape.writes) {
      must(write == kSnapshot ? qemu_img({"snapshot", "-c", kSnapshot, path(layer)})
                              : qemu_io(path(layer), shape.format, {write}));
    }
  }
  static void copy(const std::string& from, const std::string& to) {
    std::filesystem::remove_all(to);
    std::filesystem::copy(from, to);
  }

  TempDir directory_;
  std::string folder_ = directory_.file("images");
  std::vector<LayerShape> layers_;
};

template <typename T>
void require_ok(const Result<T>& result) {
  INFO((result.ok() ? "" : result.error().message));
  REQUIRE(result.ok());
}

// An operation on a disk that fails as the plan says.
inline void fail_as_planned(Operation& operation, FaultPlan& plan) {
  operation.context.wrap_file = [&plan](std::unique_ptr<File> file) -> std::unique_ptr<File> {
    return std::make_unique<FaultFile>(std::move(file), plan);
  };
}

}  // namespace sluicebox::image::testing
