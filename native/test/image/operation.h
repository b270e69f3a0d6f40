// operation.h: an operation's context, with a policy, a token and a progress sink of its own.
// Knows: image/ops. Threads: one test.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "image/chain.h"
#include "image/ops/context.h"

namespace sluicebox::image::testing {

class RecordingProgress final : public ProgressSink {
 public:
  void report(const ProgressReport& report) override {
    reports.push_back(report);
    if (on_report) on_report(report);
  }
  std::vector<ProgressReport> reports;
  std::function<void(const ProgressReport&)> on_report;
};

struct Operation {
  PathPolicy policy;
  CancelToken cancel;
  RecordingProgress progress;
  OperationContext context{policy, cancel, progress};

  explicit Operation(std::vector<std::string> allowed = {}, bool restrict_callers = false)
      : policy(std::move(allowed), restrict_callers) {}
  Operation(const Operation&) = delete;
  Operation& operator=(const Operation&) = delete;
};

// What a guest would read of the image, through this engine's chain.
inline Result<std::string> guest_bytes(const std::string& path, DiskFormat format, const char* snapshot = nullptr) {
  Operation operation({"/"});
  std::vector<Layer> layers;
  layers.push_back(TRY(open_layer(path, format, Access::kRead, operation.context)));
  std::vector<Layer> below =
      TRY(open_backing_chain({.overlay = &layers[0], .backing = layers[0].block->backing()}, operation.context));
  if (snapshot != nullptr) layers[0].block = TRY(layers[0].block->open_snapshot(snapshot));
  std::vector<Block*> blocks = {layers[0].block.get()};
  for (const Layer& layer : below) blocks.push_back(layer.block.get());
  ChainView view(std::move(blocks), layers[0].block->size());
  std::string bytes(view.size(), '?');
  TRY(view.read(0, std::as_writable_bytes(std::span(bytes.data(), bytes.size()))));
  return bytes;
}

}  // namespace sluicebox::image::testing
