// progress.h: where a running operation says how far it is.
// Knows: nothing of who listens. Implementations are cheap: operations report as often as they like.
// Threads: report() from the operation's thread.
#pragma once

#include <cstdint>
#include <optional>

namespace sluicebox {

enum class ProgressUnit : std::uint8_t { kBytes, kClusters, kItems };

struct ProgressReport {
  const char* phase = "";  // a string literal
  std::uint64_t done = 0;
  std::optional<std::uint64_t> total;
  ProgressUnit unit = ProgressUnit::kBytes;
};

class ProgressSink {
 public:
  virtual ~ProgressSink() = default;
  virtual void report(const ProgressReport& report) = 0;
};

// For callers that do not listen.
class NoProgress final : public ProgressSink {
 public:
  void report(const ProgressReport&) override {}
};

}  // namespace sluicebox
