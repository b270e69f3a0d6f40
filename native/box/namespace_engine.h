// namespace_engine.h: boxes of namespaces: a keeper that builds them, and our agent as their PID 1.
// Knows: keepers, sessions' first words. Does not know: what the keeper does.
// Threads: any.
#pragma once

#include <string>

#include "base/mutex.h"
#include "box/engine.h"

namespace sluicebox::box {

class NamespaceEngine final : public Engine {
 public:
  // The directory that the two programs lie in.
  explicit NamespaceEngine(std::string programs) : programs_(std::move(programs)) {}

  Result<LaunchedBox> launch(const BoxRecord& record, Home::Held held, const CancelToken& cancel,
                             std::chrono::steady_clock::time_point deadline) override;

 private:
  // Sealed once, for all boxes.
  Result<UniqueFd> agent() EXCLUDES(mutex_);

  const std::string programs_;
  Mutex mutex_;
  UniqueFd agent_ GUARDED_BY(mutex_);
};

}  // namespace sluicebox::box
