// namespace_engine.h: boxes of namespaces: a keeper that builds them, and our agent as their PID 1.
// Knows: keepers, sessions' first words. Does not know: what the keeper does.
// Threads: any.
#pragma once

#include <optional>
#include <string>

#include "base/mutex.h"
#include "box/engine.h"
#include "box/keeper_process.h"
#include "protocol/messages.h"

namespace sluicebox::box {

class NamespaceEngine final : public Engine {
 public:
  // The directory that the two programs lie in.
  explicit NamespaceEngine(std::string programs) : programs_(std::move(programs)) {}
  ~NamespaceEngine() override { NamespaceEngine::close(); }

  Result<LaunchedBox> launch(const BoxRecord& record, Home::Held held, const Origin& origin, const CancelToken& cancel,
                             std::chrono::steady_clock::time_point deadline) override;
  // The same from the order itself. `root`: a directory's, where the order says so.
  Result<LaunchedBox> build_walls(const protocol::Launch& launch, UniqueFd root, Home::Held held,
                                  const CancelToken& cancel, std::chrono::steady_clock::time_point deadline);
  // Sealed once, for all boxes.
  Result<UniqueFd> agent() EXCLUDES(mutex_);

  Status try_out() override;

  // One keeper with a box that is begun and has no order. It hangs on our socket as every keeper does.
  void prepare() override EXCLUDES(mutex_);
  void retire(std::chrono::steady_clock::duration age) override EXCLUDES(mutex_);
  void close() override EXCLUDES(mutex_);

 private:
  struct Spare {
    KeeperProcess keeper;
    std::chrono::steady_clock::time_point since;
  };
  // `killed`: set when it failed because the keeper was.
  Result<LaunchedBox> order(const protocol::Launch& launch, const UniqueFd& root, const Home::Held& held,
                            KeeperProcess keeper, const CancelToken& cancel,
                            std::chrono::steady_clock::time_point deadline, bool& killed) EXCLUDES(mutex_);
  Result<KeeperProcess> spare_keeper();
  std::optional<KeeperProcess> take_spare() EXCLUDES(mutex_);

  const std::string programs_;
  Mutex mutex_;
  UniqueFd agent_ GUARDED_BY(mutex_);
  std::optional<Spare> spare_ GUARDED_BY(mutex_);
  bool preparing_ GUARDED_BY(mutex_) = false;
  bool closed_ GUARDED_BY(mutex_) = false;
};

// Hangs up and waits until the keeper has taken everything away. True when it was killed.
bool take_back(KeeperProcess keeper);

}  // namespace sluicebox::box
