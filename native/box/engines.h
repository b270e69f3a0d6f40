// engines.h: the engine of each box, by what its record says.
// Knows: both engines. Threads: any.
#pragma once

#include <memory>
#include <string>

#include "box/namespace_engine.h"
#include "box/qemu_engine.h"

namespace sluicebox::box {

class Engines final : public Engine {
 public:
  Engines(const std::string& programs, std::shared_ptr<const PathPolicy> policy)
      : namespaces_(std::make_shared<NamespaceEngine>(programs)), qemu_(programs, namespaces_, std::move(policy)) {}

  Means means() override { return qemu_.means(); }
  Status try_out() override { return namespaces_->try_out(); }
  Status make_disks(BoxRecord& record, const std::string& directory, const CancelToken& cancel,
                    ProgressSink& progress) override {
    return of(record).make_disks(record, directory, cancel, progress);
  }
  Result<LaunchedBox> launch(const BoxRecord& record, Home::Held held, const Origin& origin, const CancelToken& cancel,
                             std::chrono::steady_clock::time_point deadline) override {
    return of(record).launch(record, std::move(held), origin, cancel, deadline);
  }

  // A machine's walls are begun ahead like any others.
  void prepare() override { namespaces_->prepare(); }
  void retire(std::chrono::steady_clock::duration age) override {
    namespaces_->retire(age);
    qemu_.retire(age);
  }
  void close() override {
    namespaces_->close();
    qemu_.close();
  }

 private:
  Engine& of(const BoxRecord& record) {
    if (record.spec.machine) return qemu_;
    return *namespaces_;
  }

  const std::shared_ptr<NamespaceEngine> namespaces_;
  QemuEngine qemu_;
};

}  // namespace sluicebox::box
