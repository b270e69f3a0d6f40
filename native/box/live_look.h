// live_look.h: a machine that is looked at as it runs: new layers under it, and all of its memory written to a file.
// Knows: QMP, the guest's agent. Does not know: snapshots, records.
// Threads: a worker's.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "box/layers.h"
#include "box/machine.h"
#include "box/machine_calls.h"

namespace sluicebox::box {

// What it changed of QEMU's it takes back, unless the layers were switched.
class LiveLook {
 public:
  // `chains`: of its disks, for as long as nobody else has them. `directory`: the box's own.
  LiveLook(std::shared_ptr<Box> box, Reactor& reactor, std::vector<Machine::Chain>& chains, int directory);
  ~LiveLook();
  LiveLook(const LiveLook&) = delete;
  LiveLook& operator=(const LiveLook&) = delete;

  // QEMU has each new layer open.
  Status add_layers(const std::vector<std::optional<NewLayer>>& layers);
  // What the guest has not told anybody yet is told, and nothing follows until thaw().
  Status freeze(bool file_systems);
  void thaw();

  // From here on the guest writes to the new layers.
  Status take_disks();
  // The same, with what its memory and devices are at that moment in `state`. The guest stands still meanwhile.
  Status take_all(UniqueFd state, const CancelToken& cancel);

  double paused_ms() const { return std::chrono::duration<double, std::milli>(paused_).count(); }
  bool switched() const { return switched_; }

 private:
  class Steps;

  Status switch_layers();
  Status write_memory(UniqueFd state, Steps& steps, const CancelToken& cancel);
  Status follow(Steps& steps, const CancelToken& cancel);
  Status await_finish();
  Status go_on();
  Error why_not();
  std::string last_words();
  void give_up(Steps& steps);

  const std::shared_ptr<Box> box_;
  Reactor& reactor_;
  const QmpCall call_;
  std::vector<Machine::Chain>& chains_;
  const int directory_;
  std::vector<std::pair<std::size_t, std::string>> nodes_;  // of the new layers, by disk
  std::chrono::steady_clock::time_point frozen_;
  std::chrono::steady_clock::duration paused_{0};
  bool switched_ = false;
};

}  // namespace sluicebox::box
