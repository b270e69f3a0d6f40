// qemu_engine.h: boxes that are virtual machines: QEMU as the one program of namespaces, our agent as the guest's init.
// Knows: the namespace engine, disks, QEMU's command line. Does not know: what the guest runs.
// Threads: any.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "base/path_policy.h"
#include "box/disks.h"
#include "box/engine.h"
#include "box/namespace_engine.h"
#include "box/qemu_boot.h"
#include "box/templates.h"
#include "box/trial_disks.h"

namespace sluicebox::box {

class QemuEngine final : public Engine {
 public:
  // `programs`: the directory of the agent and the keeper.
  QemuEngine(std::string programs, std::shared_ptr<NamespaceEngine> walls, std::shared_ptr<const PathPolicy> policy)
      : programs_(std::move(programs)), walls_(std::move(walls)), policy_(std::move(policy)) {}

  Means means() override;
  Status make_disks(BoxRecord& record, const std::string& directory, const CancelToken& cancel,
                    ProgressSink& progress) override;
  Result<LaunchedBox> launch(const BoxRecord& record, Home::Held held, const Origin& origin, const CancelToken& cancel,
                             std::chrono::steady_clock::time_point deadline) override;

  // Memories that nobody used for a while go.
  void retire(std::chrono::steady_clock::duration age) override EXCLUDES(mutex_);
  void close() override EXCLUDES(mutex_);

 private:
  // One snapshot's, made when the first machine is to go on from it; whoever wants it too waits.
  struct Kept {
    Mutex making;
    std::shared_ptr<const Template> ready GUARDED_BY(making);
    std::chrono::steady_clock::time_point used;
  };
  // What every machine boots from; made once.
  struct BootFiles {
    UniqueFd kernel;
    UniqueFd initrd;
    std::string digests;
  };
  struct Order;
  struct Likeness;

  static Status boot_up(const Order& order, LaunchedBox& box, std::optional<QemuBoot>& boot);
  Status go_on(QemuBoot& boot, const MemoryImage& memory, const std::vector<OpenDisk>& disks) EXCLUDES(mutex_);
  std::shared_ptr<Kept> kept(const std::string& snapshot) EXCLUDES(mutex_);
  // Nothing: there can be none.
  std::optional<Likeness> look_for_like_ones(const Order& order, const Origin& origin, TrialDisks& trial);
  Status come_up_alike(const Order& order, LaunchedBox& box, std::optional<QemuBoot>& boot, Likeness& like,
                       TrialDisks& trial);
  Result<bool> go_on_alike(const Order& order, LaunchedBox& box, std::optional<QemuBoot>& boot, Likeness& like);
  static Status keep(QemuBoot& boot, const Likeness& like, const BoxRecord& record, int directory);
  // Templates of this kind did not work here.
  void give_up_on(const std::string& key) EXCLUDES(mutex_);
  bool is_hopeless(const std::string& key) EXCLUDES(mutex_);
  Result<BootFiles> boot_files() EXCLUDES(mutex_);

  const std::string programs_;
  const std::shared_ptr<NamespaceEngine> walls_;
  const std::shared_ptr<const PathPolicy> policy_;
  Mutex mutex_;
  BootFiles files_ GUARDED_BY(mutex_);
  std::map<std::string, std::shared_ptr<Kept>> templates_ GUARDED_BY(mutex_);
  std::set<std::string> hopeless_ GUARDED_BY(mutex_);
};

}  // namespace sluicebox::box
